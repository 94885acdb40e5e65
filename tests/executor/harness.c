/*
 * The executor's own logic under sanitizers. executor.c is included as it stands; this file is its kernel, and distrusts it:
 *
 *     reading     hands out the input piece by piece; where it is put must be the head or the room, never beyond what the head said
 *     answering   touches each byte that is sent, so a reply from outside the program is seen by the sanitizer
 *     any other   some op of the program must have asked for exactly this call with these arguments: numbers as sent, slots that
 *                 there are, addresses inside the program's data and buffers; then one byte is written to each address, and a
 *                 result is made up
 *
 * The room behind the program is poisoned, and the ops and links must stay as they were sent. An input is
 *
 *     behaviour u8 | results u8 x 15 | what arrives on the socket
 *
 * Built with -DBATCH it runs a file of inputs, each with its length (u32, little end first) before it; else libFuzzer calls it.
 */

#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long long served(const char *who, unsigned long long nr, const unsigned long long *a);

#define HOSTED
#define kernel(nr, a) served(__func__, nr, a)
#include EXECUTOR

enum behaviour { SHORT_READS = 1, SHORT_SENDS = 2, NO_SOCKET = 4, INTERRUPTED = 8, SENDS_END = 16, READS_LIE = 32, SENDS_LIE = 64 };

static unsigned long long index_of_input;
static const u8 *input;
static u64 left, calls, got;                     /* input to come; calls answered; bytes of head or body handed out */
static u8 behaviour, results[15];
static struct head told;                         /* the head as it was handed out */
static int in_body;
static u8 sent[1 << 20];                         /* the body as it was handed out */

static void fail(const char *why)
{
	fprintf(stderr, "input %llu: the executor %s\n", index_of_input, why);
	abort();
}

void __asan_on_error(void)
{
	fprintf(stderr, "input %llu:\n", index_of_input);
}

static u64 body(void)
{
	return (u64)told.ops * 40 + (u64)told.links * 8 + told.data;
}

static u8 *data_of_program(void)
{
	return room + (u64)told.ops * 40 + (u64)told.links * 8;
}

static void must_be_kept(void)
{
	u64 size = (u64)told.ops * 40 + (u64)told.links * 8;
	if (in_body && got == body() && memcmp(room, sent, size) != 0)
		fail("changed the ops or links of its program");
}

/* What an argument is, by the letter of the protocol; 0 when it is malformed. */
static int understood(u32 arg, u64 *is)
{
	u8 *at = data_of_program();
	u64 value = arg & 0x1fffffff;
	*is = value;
	switch (arg >> 29) {
	case 0:
		return 1;
	case 1:
		if (value + 8 > told.data)
			return 0;
		memcpy(is, at + value, 8);
		return 1;
	case 2:
		*is = (u64)(at + value);
		return value < told.data;
	case 3:
		*is = (u64)(at + told.data + value);
		return value < told.out;
	case 4:
		*is = (u64)(at + told.data + told.out + value);
		return value < told.scratch;
	case 5:
		if (value < SLOTS)
			*is = (u64)said.slots[value];
		return value < SLOTS;
	}
	return 0;
}

/* A link must lie in the data and be of an argument that is one, else nothing of the program may be carried out. */
static int links_are_sound(void)
{
	u64 i, is;
	u32 at, arg;
	for (i = 0; i < told.links; i++) {
		memcpy(&at, sent + (u64)told.ops * 40 + i * 8, 4);
		memcpy(&arg, sent + (u64)told.ops * 40 + i * 8 + 4, 4);
		if ((u64)at + 8 > told.data || !understood(arg, &is))
			return 0;
	}
	return 1;
}

/* What arrives: first a head, then the body it announces. */
static s64 feed(u8 *to, u64 size)
{
	u64 n = size < left ? size : left;
	int inside_room = to >= room && to < room + ROOM;
	if (behaviour & INTERRUPTED && calls % 3 == 0)
		return -E_INTR;
	if (behaviour & SHORT_READS && n > 5)
		n = 5 + calls % (n - 5);
	must_be_kept();
	if (inside_room) {
		if (!in_body) {
			if (got != sizeof told)
				fail("read a body before its head");
			if (body() + told.out + told.scratch > ROOM)
				fail("accepted a program that is larger than its room");
			in_body = 1;
			got = 0;
			ASAN_UNPOISON_MEMORY_REGION(room, body() + told.out + told.scratch);
		}
		if (to != room + got || size != body() - got)
			fail("reads the body to where it does not belong");
		if (got + n > sizeof sent)
			n = 0;
		memcpy(sent + got, input, n);
	} else {
		if (in_body || got == sizeof told) {
			in_body = 0;
			got = 0;
			memset(room, 0, body() < sizeof sent ? body() : 0);
			ASAN_POISON_MEMORY_REGION(room, ROOM);
		}
		if (size != sizeof told - got)
			fail("reads something that is neither head nor body");
		memcpy((u8 *)&told + got, input, n);
	}
	memcpy(to, input, n);
	input += n;
	left -= n;
	got += n;
	if (!in_body && got == sizeof told && body() == 0 && (u64)told.out + told.scratch <= ROOM) {
		in_body = 1;                                     /* nothing of a body will be asked for */
		got = 0;
		ASAN_UNPOISON_MEMORY_REGION(room, (u64)told.out + told.scratch);
	}
	return behaviour & READS_LIE && calls % 5 == 4 ? (s64)size + 1 : (s64)n;
}

/* An answer: every eighth byte of it is looked at, which is as closely as the sanitizer looks, and the last one. */
static s64 taken(u64 nr, const u8 *from, u64 size)
{
	volatile u8 sum = 0;
	u64 i;
	for (i = 0; i < size; i += 8)
		sum ^= from[i];
	sum ^= from[size - 1];
	(void)sum;
	if (in_body && got == body() && !links_are_sound() && from == (const u8 *)&said && said.reply.at != 0xfffffffe)
		fail("carried out a program whose links are wrong");
	if (nr == SYS_SENDTO && behaviour & NO_SOCKET)
		return -E_NOTSOCK;
	if (behaviour & INTERRUPTED && calls % 3 == 0)
		return -E_INTR;
	if (behaviour & SENDS_END && calls % 11 == 10)
		return calls & 1 ? 0 : -32;
	if (behaviour & SENDS_LIE && calls % 7 == 6)
		return (s64)size + 1;
	return (s64)(behaviour & SHORT_SENDS && size > 9 ? size / 2 + calls % (size / 2) : size);
}

/* Is this what the op says? */
static int asked(const u8 *op, u64 nr, const u64 *a)
{
	u64 i, is;
	u32 arg;
	if ((u64)(op[0] | op[1] << 8) != nr)
		return 0;
	for (i = 0; i < 6; i++) {
		memcpy(&arg, op + 16 + 4 * i, 4);
		if (!understood(arg, &is) || a[i] != is)
			return 0;
	}
	return 1;
}

static s64 made_up(u64 nr, const u64 *a)
{
	u8 pick = results[calls % sizeof results];
	u64 at, i;
	must_be_kept();
	if (nr >= CHECK)
		fail("made a call of a word that is its own, or none");
	if (!links_are_sound())
		fail("carried out a program whose links are wrong");
	for (at = 0; at < told.ops && !asked(sent + 40 * at, nr, a); at++)
		;
	if (at == told.ops)
		fail("made a call that no op asked for");
	for (i = 0; i < 6; i++)
		if (sent[40 * at + 19 + 4 * i] >> 5 >= 2 && sent[40 * at + 19 + 4 * i] >> 5 <= 4)
			*(volatile u8 *)a[i] = pick;             /* as the kernel would fill a buffer */
	if (pick < 100)
		return pick;
	if (pick < 228)
		return -(s64)(pick - 99);
	return pick == 255 ? 1ll << 62 : pick == 254 ? -4096 : pick == 253 ? -4095 : -16 * (s64)pick;
}

static long long served(const char *who, unsigned long long nr, const unsigned long long *a)
{
	calls++;
	if (strcmp(who, "call4") != 0)
		return made_up(nr, a);
	if (a[0] != control)
		fail("talks to another descriptor than its control socket");
	if (nr == SYS_READ)
		return feed((u8 *)a[1], a[2]);
	if (nr != SYS_SENDTO && nr != SYS_WRITE)
		fail("made a call of its own that it has no need for");
	return taken(nr, (const u8 *)a[1], a[2]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size < 16 || size > sizeof sent)
		return 0;
	behaviour = bytes[0];
	memcpy(results, bytes + 1, sizeof results);
	input = bytes + 16;
	left = size - 16;
	ASAN_UNPOISON_MEMORY_REGION(room, ROOM);
	if (in_body)
		memset(room, 0, got);
	ASAN_POISON_MEMORY_REGION(room, ROOM);
	memset(&said, 0, sizeof said);
	memset(&told, 0, sizeof told);
	got = calls = 0;
	in_body = 0;
	control = number("3");
	while (turn())
		must_be_kept();
	return 0;
}

#ifdef BATCH
int main(int argc, char **argv)
{
	static u8 bytes[1 << 20];
	FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
	u32 size;
	if (!file)
		return 2;
	for (; fread(&size, sizeof size, 1, file) == 1; index_of_input++) {
		if (size > sizeof bytes || fread(bytes, 1, size, file) != size)
			return 2;
		/* a copy of its own, so that reading behind an input is seen */
		u8 *copy = malloc(size ? size : 1);
		if (!copy)
			return 2;
		memcpy(copy, bytes, size);
		LLVMFuzzerTestOneInput(copy, size);
		free(copy);
	}
	fclose(file);
	printf("%llu inputs\n", index_of_input);
	return 0;
}
#endif
