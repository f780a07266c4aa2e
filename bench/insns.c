// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU: how many instructions does a system call take, and where?
 *
 *	-plugin insns.so,from=ADDRESS,out=FILE
 *
 * Counts from the time that the guest comes to ADDRESS, the entry of the system
 * call, until it is back in user space, and writes a line for each block of code:
 * its address and the instructions executed in it. Built without QEMU's header,
 * which few systems install: what is needed of it is declared here.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
		void (*cb)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
		void (*cb)(unsigned int vcpu, void *data), int flags, void *data);
void qemu_plugin_register_atexit_cb(uint64_t id,
		void (*cb)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

/* 1, or for QEMU 9 and later 2 */
EXPORT int qemu_plugin_version = API;

struct block {
	struct block *next;
	uint64_t addr;
	uint64_t insns;		/* of one time through it */
	uint64_t count;
};

static struct block *blocks;
static uint64_t from, calls;
static const char *out;
static bool on;

static void executed(unsigned int vcpu, void *data)
{
	struct block *b = data;

	(void)vcpu;
	if (b->addr == from) {
		on = true;
		calls++;
	} else if (!(b->addr >> 63)) {
		on = false;
	}
	if (on)
		b->count += b->insns;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	(void)id;
	if (!b)
		abort();
	b->addr = qemu_plugin_tb_vaddr(tb);
	b->insns = qemu_plugin_tb_n_insns(tb);
	b->next = blocks;
	blocks = b;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, b);
}

static void at_exit(uint64_t id, void *data)
{
	FILE *f = fopen(out, "w");
	struct block *b;

	(void)id;
	(void)data;
	if (!f)
		return;
	fprintf(f, "calls %llu\n", (unsigned long long)calls);
	for (b = blocks; b; b = b->next)
		if (b->count)
			fprintf(f, "%016llx %llu\n", (unsigned long long)b->addr,
				(unsigned long long)b->count);
	fclose(f);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	int i;

	(void)info;
	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "from=", 5))
			from = strtoull(argv[i] + 5, NULL, 16);
		else if (!strncmp(argv[i], "out=", 4))
			out = strdup(argv[i] + 4);
	}
	if (!from || !out) {
		fprintf(stderr, "insns: needs from=ADDRESS,out=FILE\n");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
