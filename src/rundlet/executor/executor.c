/*
 * The executor: carries out system calls that it is sent, and says how far it came.
 *
 * It knows nothing of containers. A program arrives on a socket (the number of its descriptor is argv[1]):
 *
 *     struct head | struct op × ops | struct link × links | data
 *
 * Behind the data the program has room that is not sent, all zero: buffers that the answer returns, then others. Each op is a system
 * call with six arguments: numbers, addresses in the data or in a buffer, or results of earlier calls ("slots", kept from one
 * program to the next). A failing call whose errno is not listed as fine ends the program. The answer is
 *
 *     struct reply | the first `slots` slots | the buffers to return
 *
 * after which the next program is awaited. The end of the socket is the end of the process: what it was building dies with
 * whoever asked for it. No libc, no allocation, no text; every number that arrives is checked before it is used.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

enum { MAGIC = 0x32545652, SLOTS = 1 << 14, ROOM = 8 << 20, NONE = 0xffff, AGAIN = 1000 };
enum { E_INTR = 4, E_AGAIN = 11, E_BADMSG = 74, E_NOTSOCK = 88, MSG_NOSIGNAL = 0x4000 };
enum word { CHECK = 0xff00, PUT, REPLY, NEXT, REDIRECT, VALUE };                /* calls that are the executor's own */

/* An argument: what it is in the upper three bits, a value in the others. */
enum kind { NUMBER, WORD, DATA, OUT, SCRATCH, SLOT };
enum { KIND = 29, MASK = (1 << KIND) - 1 };

struct head { u32 magic, ops, links, data, out, scratch, slots, zero; };
struct op {
	u16 nr, into;                            /* the slot that keeps the result, or NONE */
	u8 fine[4];                              /* errnos that do not fail the program; 0 = none */
	u16 on_zero, on_more, on_fine;           /* how many of the following ops to pass over */
	u16 zero;
	u32 arg[6];
};
struct link { u32 at, arg; };                    /* data[at] (eight bytes) becomes what the argument is */
struct reply { u32 magic, at, error, slots, out, zero; };

_Static_assert(sizeof(struct head) == 32 && sizeof(struct op) == 40 && sizeof(struct reply) == 24, "the layout is the protocol");

#ifndef HOSTED                                   /* the same logic under sanitizers: tests/executor/harness.c supplies the calls */
static s64 kernel(u64 nr, const u64 *a)
{
#if defined(__x86_64__)
	s64 r;
	register u64 r10 __asm__("r10") = a[3];
	register u64 r8 __asm__("r8") = a[4];
	register u64 r9 __asm__("r9") = a[5];
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register u64 x8 __asm__("x8") = nr;
	register u64 x0 __asm__("x0") = a[0];
	register u64 x1 __asm__("x1") = a[1];
	register u64 x2 __asm__("x2") = a[2];
	register u64 x3 __asm__("x3") = a[3];
	register u64 x4 __asm__("x4") = a[4];
	register u64 x5 __asm__("x5") = a[5];
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return (s64)x0;
#else
#error "the executor knows x86-64 and aarch64"
#endif
}
#endif

#if defined(__aarch64__)
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT_GROUP = 94, SYS_SENDTO = 206 };
#else
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_EXIT_GROUP = 231, SYS_SENDTO = 44 };
#endif
enum { OPENAT2 = 437 };

static u8 room[ROOM] __attribute__((aligned(16)));
static struct { struct reply reply; s64 slots[SLOTS]; } said;
static u64 control;

/* The program at hand: its head, and the place of its data and buffers. */
static struct head head;
static u8 *data;

static s64 call4(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	const u64 args[6] = { a, b, c, d, 0, 0 };
	return kernel(nr, args);
}

/* Reads exactly `size` bytes; 0 at the end of the socket. */
static int take(u8 *to, u64 size)
{
	while (size) {
		s64 n = call4(SYS_READ, control, (u64)to, size, 0);
		if (n == -E_INTR)
			continue;
		if (n <= 0 || (u64)n > size)
			return 0;
		to += n;
		size -= (u64)n;
	}
	return 1;
}

static int give(const void *what, u64 size)
{
	const u8 *from = what;
	while (size) {
		s64 n = call4(SYS_SENDTO, control, (u64)from, size, MSG_NOSIGNAL);
		if (n == -E_NOTSOCK)
			n = call4(SYS_WRITE, control, (u64)from, size, 0);
		if (n == -E_INTR)
			continue;
		if (n <= 0 || (u64)n > size)
			return 0;
		from += n;
		size -= (u64)n;
	}
	return 1;
}

/* What comes back of a program: the slots that it wants, and its buffers; of one that has not begun, neither. */
static void answer(u64 at, u64 error, u32 slots, u32 out)
{
	const struct reply reply = { MAGIC, (u32)at, (u32)error, slots, out, 0 };
	said.reply = reply;
	if (give(&said, sizeof reply + slots * sizeof(s64)) && out)
		give(data + head.data, out);
}

static int inside(u64 at, u64 size, u64 whole)
{
	return at <= whole && size <= whole - at;
}

/* What the program may write to and read from. */
static u64 extent(void)
{
	return (u64)head.data + head.out + head.scratch;
}

/* What an argument is; 0 when it is malformed. */
static int resolve(u32 arg, u64 *is)
{
	u64 i, value = arg & MASK;
	switch (arg >> KIND) {
	case NUMBER:
		*is = value;
		return 1;
	case WORD:                               /* a number that is larger, or negative */
		for (*is = i = 0; i < 8 && inside(value, 8, head.data); i++)
			*is |= (u64)data[value + i] << (8 * i);
		return i == 8;
	case DATA:
		*is = (u64)(data + value);
		return value < head.data;
	case OUT:
		*is = (u64)(data + head.data + value);
		return value < head.out;
	case SCRATCH:
		*is = (u64)(data + head.data + head.out + value);
		return value < head.scratch;
	case SLOT:
		if (value >= SLOTS)
			return 0;
		*is = (u64)said.slots[value];
		return 1;
	}
	return 0;
}

/* Writes a number little end first, as both machines have it. */
static void store(u8 *to, u64 value, u64 width)
{
	u64 i;
	for (i = 0; i < width; i++)
		to[i] = (u8)(value >> (8 * i));
}

/* check(a, b, size, error): at both addresses there must be the same, else `error`. */
static s64 check(const u64 *arg)
{
	u64 i, a = arg[0] - (u64)data, b = arg[1] - (u64)data, n = arg[2];
	if (!inside(a, n, extent()) || !inside(b, n, extent()) || arg[3] - 1 >= 4095)
		return -E_BADMSG;
	for (i = 0; i < n; i++)
		if (data[a + i] != data[b + i])
			return -(s64)arg[3];
	return 0;
}

/* put(value, at, width): writes `width` bytes of the value to an address. */
static s64 put(const u64 *arg)
{
	u64 at = arg[1] - (u64)data;
	if (arg[2] > 8 || !inside(at, arg[2], extent()))
		return -E_BADMSG;
	store(data + at, arg[0], arg[2]);
	return 0;
}

/* Resolves the arguments and makes the call; what is malformed is -EBADMSG. */
static s64 perform(const struct op *op)
{
	u64 i, args[6];
	for (i = 0; i < 6; i++)
		if (!resolve(op->arg[i], &args[i]))
			return -E_BADMSG;
	if (op->nr < CHECK) {
		s64 r = kernel(op->nr, args);
		/* where a path has "..", any rename or mount on the host may come between: openat2(2), EAGAIN */
		for (i = 0; i < AGAIN && r == -E_AGAIN && op->nr == OPENAT2; i++)
			r = kernel(op->nr, args);
		return r;
	}
	switch (op->nr) {
	case CHECK:
		return check(args);
	case PUT:
		return put(args);
	case REDIRECT:
		control = args[0];
		return 0;
	case VALUE:
		return (s64)args[0];
	}
	return -E_BADMSG;
}

static int is_fine(const struct op *op, u64 error)
{
	return error && (error == op->fine[0] || error == op->fine[1] || error == op->fine[2] || error == op->fine[3]);
}

/* Carries out the ops one by one and answers, but for NEXT, which goes on to the next program without a word. */
static void run(const struct op *ops)
{
	u64 at;
	for (at = 0; at < head.ops; at++) {
		const struct op *op = &ops[at];
		u64 over;
		s64 r;
		if (op->into != NONE && op->into >= SLOTS) {
			answer(at, E_BADMSG, head.slots, head.out);   /* never fine: there is nowhere to keep the result */
			return;
		}
		if (op->nr == NEXT)
			return;
		if (op->nr == REPLY) {
			answer(at, 0, head.slots, head.out);
			r = 0;
		} else
			r = perform(op);
		if (r < 0 && r >= -4095) {
			if (!is_fine(op, (u64)-r)) {
				answer(at, (u64)-r, head.slots, head.out);
				return;
			}
			over = op->on_fine;
		} else
			over = r ? op->on_more : op->on_zero;
		if (op->into != NONE)
			said.slots[op->into] = r;
		at += over;
	}
	answer(head.ops, 0, head.slots, head.out);
}

/* Zeroes the data from one place to another; the barrier keeps compilers from calling a function that is not here. */
static void clear(u64 from, u64 to)
{
	while (from < to) {
		if (from % 8 || to - from < 8)
			data[from++] = 0;
		else {
			*(u64 *)(data + from) = 0;
			from += 8;
		}
		__asm__ volatile("" : : : "memory");
	}
}

/* Receives one program and runs it; 0 when there is none any more. */
static int turn(void)
{
	u64 i, value, ops, links;
	if (!take((u8 *)&head, sizeof head))
		return 0;
	ops = (u64)head.ops * sizeof(struct op);
	links = (u64)head.links * sizeof(struct link);
	if (head.magic != MAGIC || head.slots > SLOTS || ops + links + extent() > ROOM) {
		answer(0xffffffff, E_BADMSG, 0, 0);
		return 0;                        /* where the next program would begin is not known */
	}
	if (!take(room, ops + links + head.data))
		return 0;
	data = room + ops + links;
	clear(head.data, extent());
	for (i = 0; i < head.links; i++) {
		const struct link *link = (const struct link *)(room + ops) + i;
		if (!inside(link->at, 8, head.data) || !resolve(link->arg, &value)) {
			answer(0xfffffffe, E_BADMSG, 0, 0);
			return 1;
		}
		store(data + link->at, value, 8);
	}
	run((const struct op *)room);
	return 1;
}

/* argv[1] is the number of the control socket, in decimal. */
static u64 number(const char *text)
{
	u64 n = 0;
	while (*text >= '0' && *text <= '9')
		n = n * 10 + (u64)(*text++ - '0');
	return n;
}

#ifndef HOSTED
__attribute__((noreturn, used)) void begin(const u64 *stack)
{
	control = stack[0] > 1 ? number((const char *)stack[2]) : 3;
	while (turn())
		;
	for (;;)
		call4(SYS_EXIT_GROUP, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tbl begin\n");
#endif
#endif
