/*
 * The executor: carries out system calls that it is sent, and says how far it came.
 *
 * It knows nothing of containers. A program arrives on a socket (the number of its descriptor is argv[1]):
 *
 *     struct head | struct op × ops | struct link × links | data
 *
 * Each op is a system call with six arguments: numbers, addresses in the data, or results of earlier calls ("slots", kept from
 * one program to the next). A failing call whose errno is not listed as fine ends the program. The answer is
 *
 *     struct reply | slots | the first `out` bytes of the data
 *
 * after which the next program is awaited. The end of the socket is the end of the process: what it was building dies with
 * whoever asked for it. No libc, no allocation, no text; every number that arrives is checked before it is used.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

enum { MAGIC = 0x31545652, SLOTS = 128, ROOM = 8 << 20, NONE = 255 };
enum { E_INTR = 4, E_BADMSG = 74, E_NOTSOCK = 88, MSG_NOSIGNAL = 0x4000 };
enum kind { NUMBER, ADDRESS, SLOT };                                     /* what an argument is */
enum word { CHECK = 0xff00, PUT, REPLY, NEXT, REDIRECT, VALUE };                /* calls that are the executor's own */

struct head { u32 magic, ops, links, data, out, zero; };
struct op {
	u16 nr;
	u8 kind[6];
	u8 fine[4];                              /* errnos that do not fail the program; 0 = none */
	u8 into, zero;                           /* the slot that keeps the result, or NONE */
	u16 on_zero, on_more, on_fine;           /* how many of the following ops to pass over */
	u32 zero2;
	u64 arg[6];
};
struct link { u32 at, to; };                     /* data[at] (eight bytes) becomes the address of data[to] */
struct reply { u32 magic, at; u32 error, out; };

_Static_assert(sizeof(struct head) == 24 && sizeof(struct op) == 72 && sizeof(struct reply) == 16, "the layout is the protocol");

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

static u8 room[ROOM] __attribute__((aligned(16)));
static s64 slots[SLOTS];
static u64 control;

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

static void answer(u64 at, u64 error, const u8 *data, u32 out)
{
	const struct reply reply = { MAGIC, (u32)at, (u32)error, out };
	if (give(&reply, sizeof reply) && give(slots, sizeof slots))
		give(data, out);
}

static int inside(u64 at, u64 size, u64 whole)
{
	return at <= whole && size <= whole - at;
}

/* data[a] and data[b] must be the same for `size` bytes, else `error`. */
static s64 check(const struct op *op, const u8 *data, u64 size)
{
	u64 i, a = op->arg[0], b = op->arg[1], n = op->arg[2];
	if (!inside(a, n, size) || !inside(b, n, size) || op->arg[3] - 1 >= 4095)
		return -E_BADMSG;
	for (i = 0; i < n; i++)
		if (data[a + i] != data[b + i])
			return -(s64)op->arg[3];
	return 0;
}

/* Copies a slot into data[at], `width` bytes, little end first as both machines have it. */
static s64 put(const struct op *op, u8 *data, u64 size)
{
	u64 i, at = op->arg[1], width = op->arg[2];
	if (op->arg[0] >= SLOTS || width > 8 || !inside(at, width, size))
		return -E_BADMSG;
	for (i = 0; i < width; i++)
		data[at + i] = (u8)((u64)slots[op->arg[0]] >> (8 * i));
	return 0;
}

/* Resolves the arguments and makes the call; what is malformed is -EBADMSG. */
static s64 perform(const struct op *op, u8 *data, u64 size)
{
	u64 i, args[6];
	for (i = 0; i < 6; i++) {
		u64 value = op->arg[i];
		if (op->kind[i] == ADDRESS && value < size)
			value = (u64)(data + value);
		else if (op->kind[i] == SLOT && value < SLOTS)
			value = (u64)slots[value];
		else if (op->kind[i] != NUMBER)
			return -E_BADMSG;
		args[i] = value;
	}
	if (op->nr == VALUE)
		return (s64)args[0];
	if (op->nr == REDIRECT) {
		control = args[0];
		return 0;
	}
	return op->nr < CHECK ? kernel(op->nr, args) : -E_BADMSG;
}

static int is_fine(const struct op *op, u64 error)
{
	return error && (error == op->fine[0] || error == op->fine[1] || error == op->fine[2] || error == op->fine[3]);
}

/* Carries out the ops one by one and answers, but for NEXT, which goes on to the next program without a word. */
static void run(const struct head *head, const struct op *ops, u8 *data)
{
	u64 at;
	for (at = 0; at < head->ops; at++) {
		const struct op *op = &ops[at];
		u64 over;
		s64 r;
		if (op->into != NONE && op->into >= SLOTS) {
			answer(at, E_BADMSG, data, head->out);   /* never fine: there is nowhere to keep the result */
			return;
		}
		if (op->nr == CHECK)
			r = check(op, data, head->data);
		else if (op->nr == PUT)
			r = put(op, data, head->data);
		else if (op->nr == NEXT)
			return;
		else if (op->nr == REPLY) {
			answer(at, 0, data, head->out);
			r = 0;
		} else
			r = perform(op, data, head->data);
		if (r < 0 && r >= -4095) {
			if (!is_fine(op, (u64)-r)) {
				answer(at, (u64)-r, data, head->out);
				return;
			}
			over = op->on_fine;
		} else
			over = r ? op->on_more : op->on_zero;
		if (op->into != NONE)
			slots[op->into] = r;
		at += over;
	}
	answer(head->ops, 0, data, head->out);
}

/* Receives one program and runs it; 0 when there is none any more. */
static int turn(void)
{
	struct head head;
	u64 i, ops, links;
	if (!take((u8 *)&head, sizeof head))
		return 0;
	ops = (u64)head.ops * sizeof(struct op);
	links = (u64)head.links * sizeof(struct link);
	if (head.magic != MAGIC || head.out > head.data || ops + links + head.data > ROOM) {
		answer(0xffffffff, E_BADMSG, room, 0);
		return 0;                        /* where the next program would begin is not known */
	}
	if (!take(room, ops + links + head.data))
		return 0;
	u8 *data = room + ops + links;
	for (i = 0; i < head.links; i++) {
		const struct link *link = (const struct link *)(room + ops) + i;
		u64 b, address;
		if (!inside(link->at, 8, head.data) || link->to >= head.data) {
			answer(0xfffffffe, E_BADMSG, data, 0);
			return 1;
		}
		address = (u64)(data + link->to);
		for (b = 0; b < 8; b++)
			data[link->at + b] = (u8)(address >> (8 * b));
	}
	run(&head, (const struct op *)room, data);
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
