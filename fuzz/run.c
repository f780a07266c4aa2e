// SPDX-License-Identifier: GPL-2.0
/* Run a sequence of calls in its processes, and compare after each. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fuzz.h"

int failed_at;
unsigned long nr_done;
struct result results[MAX_OPS];
bool hangs;

/* Of all that were started; those that are alive are in control->pids. */
static pid_t pids[NR_PROCS];

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		close(fd);
	else
		close(fd);
}

#define THP	"/sys/kernel/mm/transparent_hugepage/"

static void set_thp(int mode)
{
	static int was = -1;
	static const struct {
		const char *size;
		int order, modes;
	} sizes[] = {
		{ "16", 2, 1 << 2 }, { "64", 4, 1 << 1 | 1 << 2 | 1 << 3 },
		{ "128", 5, 0 }, { "256", 6, 1 << 2 }, { "32", 3, 0 },
		{ "512", 7, 0 }, { "1024", 8, 0 }, { "2048", 9, 1 << 3 },
	};
	char path[128];
	unsigned int i;

	if (mode == was)
		return;
	was = mode;
	put(THP "enabled", mode ? "always" : "never");
	put(THP "defrag", "always");
	put(THP "use_zero_page", "0");
	put(THP "khugepaged/defrag", "0");
	put(THP "khugepaged/scan_sleep_millisecs", "4000000000");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		sprintf(path, THP "hugepages-%skB/enabled", sizes[i].size);
		put(path, sizes[i].modes & 1 << mode ? "always" : "never");
	}
}

/* Returns false if the process does not answer. */
static bool dispatch(struct op *op, struct result *res)
{
	struct pollfd pollfd = { .fd = answer_pipe[0], .events = POLLIN };
	int tries, status;
	char byte = 0;

	control->op = *op;
	if (write(command_pipe[op->who][1], &byte, 1) != 1)
		return false;
	for (tries = 0; tries < 150; tries++) {
		if (poll(&pollfd, 1, 200) == 1) {
			if (read(answer_pipe[0], &byte, 1) != 1)
				return false;
			*res = control->res;
			return true;
		}
		if (waitpid(pids[op->who], &status, WNOHANG) > 0)
			return false;
	}
	hangs = true;
	return false;
}

/* Its pages have gone when it has, whoever its parent is. */
static void wait_for_exit(pid_t pid)
{
	struct pollfd pollfd = { .events = POLLIN };

	pollfd.fd = syscall(SYS_pidfd_open, pid, 0);
	if (pollfd.fd < 0)
		return;
	poll(&pollfd, 1, 20000);
	close(pollfd.fd);
}

static void stop_all(void)
{
	int i;

	if (hangs)
		return;
	disturb(false);
	for (i = 0; i < NR_PROCS; i++) {
		control->pids[i] = 0;
		if (pids[i] > 0)
			kill(pids[i], SIGKILL);
	}
	for (i = 0; i < NR_PROCS; i++) {
		if (pids[i] > 0)
			waitpid(pids[i], NULL, 0);
	}
	/* Those whose parents have gone. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	for (i = 0; i < NR_PROCS; i++) {
		close(command_pipe[i][0]);
		close(command_pipe[i][1]);
	}
	close(answer_pipe[0]);
	close(answer_pipe[1]);
}

static bool start(void)
{
	pid_t pid;
	int i;

	for (i = 0; i < NR_PROCS; i++) {
		if (pipe2(command_pipe[i], O_CLOEXEC))
			return false;
	}
	if (pipe2(answer_pipe, O_CLOEXEC))
		return false;
	pid = fork();
	if (!pid)
		worker(0);
	memset(pids, 0, sizeof(pids));
	pids[0] = pid;
	control->pids[0] = pid;
	m.proc[0].alive = true;
	return pid > 0;
}

/*
 * Have the bytes compared: of all pages, or only of those which are present, so
 * that what is in swap, or was never touched, stays so.
 */
static const char *compare(int who, bool all, bool *died)
{
	struct op op = { .type = OP_COMPARE, .who = who };
	struct proc *p = &m.proc[who];
	struct result res;
	int i, page;
	bool any = false;

	if (!all)
		read_now(who);
	for (page = 0; page < NR_PAGES; page++)
		control->want[page] = SKIP;
	for (i = 0; i < p->nr; i++) {
		for (page = p->v[i].start; page < p->v[i].end; page++) {
			if (!all && !is_present(page))
				continue;
			if (touch(p, page, false, 0))
				continue;
			control->want[page] = stamp_at(p, page);
			any = true;
		}
	}
	if (!any)
		return NULL;
	if (!dispatch(&op, &res)) {
		*died = true;
		return fail("process %d died, or hangs", who);
	}
	return apply(&op, &res);
}

/* Have the kernel find all pages from their folios; then all bytes must be there. */
static const char *find_pages(int who, bool *died)
{
	struct proc *p = &m.proc[who];
	struct result res;
	const char *why = NULL;
	struct op op;
	int i;

	if (!p->nr)
		return NULL;
	op = (struct op) { .type = OP_MIGRATE, .who = who, .page = p->v[0].start,
		.nr = p->v[p->nr - 1].end - p->v[0].start, .arg = -1 };
	if (!dispatch(&op, &res)) {
		*died = true;
		return fail("process %d died, or hangs", who);
	}
	why = apply(&op, &res);
	for (i = 0; i < p->nr && !why; i++) {
		op = (struct op) { .type = OP_MADVISE, .who = who,
			.page = p->v[i].start, .flags = MADV_PAGEOUT,
			.nr = p->v[i].end - p->v[i].start };
		if (!dispatch(&op, &res)) {
			*died = true;
			return fail("process %d died, or hangs", who);
		}
	}
	return why ?: compare(who, true, died);
}

static const char *step(struct op *op, struct result *res, int nr, bool *died)
{
	struct proc *p = &m.proc[op->who];
	const char *why;

	take_before(op);
	if (op->type == OP_MREMAP) {
		control->hot = op->page;
		control->nr_hot = op->nr;
	}
	if (!dispatch(op, res)) {
		*died = true;
		return fail("process %d died, or hangs", op->who);
	}
	if (op->type == OP_FORK && res->ret > 0) {
		pids[op->arg] = res->ret;
		control->pids[op->arg] = res->ret;
	}
	if (op->type == OP_EXIT) {
		control->pids[op->who] = 0;
		wait_for_exit(pids[op->who]);
	}
	why = apply(op, res);
	/* An entry in the wrong place says more. */
	if (op->type == OP_MREMAP)
		why = check_entries(op->who) ?: why;
	nr_done++;
	if (why || !p->alive)
		return why;
	why = check_layout(op->who);
	if (!why && op->type == OP_MREMAP)
		why = check_report(op->who, res);
	if (why)
		return why;
	if (op->type == OP_MREMAP || op->type == OP_MLOCK)
		why = check_books(op->who);
	if (!why && (op->type == OP_MREMAP || nr % 8 == 7))
		why = compare(op->who, nr % 8 == 7, died);
	if (!why && nr % 4 == 3)
		why = kernel_says();
	return why;
}

/* A number for all that the processes can see. */
uint64_t digest;

static void add(uint64_t value)
{
	digest = (digest ^ value) * 0x100000001b3ull;
	digest ^= digest >> 29;
}

static void compute_digest(void)
{
	int who, i, page;

	digest = 0xcbf29ce484222325ull;
	for (who = 0; who < NR_PROCS; who++) {
		struct proc *p = &m.proc[who];

		for (i = 0; p->alive && i < p->nr; i++) {
			for (page = p->v[i].start; page < p->v[i].end; page++) {
				add((uint64_t)who << 32 | page);
				add(stamp_at(p, page));
				add(p->v[i].a.prot | p->v[i].a.kind << 8 |
				    p->v[i].a.locked << 16 | p->p[page].guard << 24);
			}
		}
	}
}

static const char *end(bool *died)
{
	const char *why = NULL;
	int who;

	disturb(false);
	for (who = 0; who < NR_PROCS && !why; who++) {
		if (!m.proc[who].alive)
			continue;
		why = check_flags(who);
		if (!why)
			why = check_books(who);
		if (!why)
			why = find_pages(who, died);
	}
	return why;
}

/* What all processes together had reserved is free again. */
static const char *check_committed(long was)
{
	long is = was;
	int tries;

	for (tries = 0; tries < 20; tries++) {
		is = committed();
		if (is == was || m.books_off || !opt.alone || opt.disturb)
			return NULL;
		usleep(1000 << (tries / 4));
	}
	return fail("Committed_AS is %ld kB after all have ended, %ld before", is, was);
}

/*
 * Run what is in @ops, or what @seed makes of it. Returns why it failed, or
 * NULL. Calls that make no sense are left out of @ops, and @nr set accordingly.
 */
const char *run_sequence(struct op *ops, int *nr, uint64_t seed, bool generated)
{
	const char *why = NULL;
	bool died = false;
	long was;
	int i, n = generated ? opt.nr_ops : *nr, made = 0;

	model_reset();
	gen_start(seed);
	thp_mode = seed % 5 % 4;
	set_thp(thp_mode);
	kernel_says();
	was = committed();
	if (!start()) {
		perror("cannot start a process");
		exit(1);
	}
	books_start(0);
	disturb(true);
	for (i = 0; i < n && made < MAX_OPS - 1 && !why; i++) {
		struct op *op = &ops[made];

		if (generated)
			generate(op, i);
		else
			*op = ops[i];
		if (!is_valid(op))
			continue;
		if (opt.verbose)
			print_op(op, NULL);
		failed_at = made;
		why = step(op, &results[made], made, &died);
		made++;
		/* Without the flags, it would not have been refused. */
		if (!why && opt.same && generated && made < MAX_OPS &&
		    op->type == OP_MREMAP && (op->flags & MUST) &&
		    results[made - 1].ret == -EFAULT) {
			ops[made] = *op;
			ops[made].flags &= ~(RELOCATE | MUST);
			failed_at = made;
			why = step(&ops[made], &results[made], i, &died);
			made++;
		}
	}
	*nr = made;
	compute_digest();
	if (!why)
		why = end(&died);
	stop_all();
	if (!why)
		why = check_committed(was);
	if (!why || died)
		why = kernel_says() ?: why;
	return why;
}
