// SPDX-License-Identifier: GPL-2.0
/* What all of the fuzzer shares: its options, and how it says what is wrong. */
#include <stdarg.h>
#include <stdio.h>
#include "fuzz.h"

struct options opt;
int thp_mode;

/* Why a sequence has failed. The text is good until the next but one. */
const char *fail(const char *fmt, ...)
{
	static char text[2][4096];
	static int turn;
	va_list args;

	turn ^= 1;
	va_start(args, fmt);
	vsnprintf(text[turn], sizeof(text[0]), fmt, args);
	va_end(args);
	return text[turn];
}
