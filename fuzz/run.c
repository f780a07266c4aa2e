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
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fuzz.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

struct options opt;
int thp_mode, failed_at;
unsigned long nr_done, nr_relocated, nr_refused, nr_injected, nr_plain;
struct result results[MAX_OPS];
bool hangs;

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
		if (waitpid(m.proc[op->who].pid, &status, WNOHANG) > 0)
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
		if (m.proc[i].pid > 0)
			kill(m.proc[i].pid, SIGKILL);
	}
	for (i = 0; i < NR_PROCS; i++) {
		if (m.proc[i].pid > 0)
			waitpid(m.proc[i].pid, NULL, 0);
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
	m.proc[0].pid = pid;
	m.proc[0].alive = true;
	return pid > 0;
}

static bool range_is(struct proc *p, struct op *op, int kind, bool uffd)
{
	int i, page = op->page;

	while (page < op->page + op->nr) {
		i = page >= 0 && page < NR_PAGES ? vma_at(p, page) : -1;
		if (i < 0 || p->v[i].a.kind != kind ||
		    (uffd && !p->v[i].a.uffd))
			return false;
		page = p->v[i].end;
	}
	return true;
}

static bool range_has(struct proc *p, struct op *op, bool (*has)(struct vma *))
{
	int i;

	for (i = vma_next(p, op->page < 0 ? 0 : op->page);
	     i < p->nr && p->v[i].start < op->page + op->nr; i++) {
		if (has(&p->v[i]))
			return true;
	}
	return false;
}

static bool not_anon(struct vma *v)
{
	return v->a.kind != ANON;
}

static bool has_uffd(struct vma *v)
{
	return v->a.uffd;
}

/* To align huge pages, the kernel wants more, and looks for it elsewhere too. */
static bool finds_gap(struct proc *p, int nr)
{
	return has_gap(p, nr % BLOCK ? nr : nr + BLOCK);
}

/* Does it work, and do the same, wherever the VMAs in its range begin and end? */
static bool depends_on_bytes_only(struct op *op)
{
	if (op->nth || op->off & 3)
		return false;
	/* Without MAYMOVE, the relocation flags are an error by themselves. */
	if (!(op->flags & MAYMOVE) || op->flags & ~31)
		return false;
	if (op->nr == op->new_nr)
		return (op->flags & FIXED) || !(op->flags & DONTUNMAP);
	return op->nr > op->new_nr && !(op->flags & (FIXED | DONTUNMAP));
}

/* Do we know what such a call does, here and now? */
bool is_valid(struct op *op)
{
	struct proc *p = &m.proc[op->who];
	struct op first = { .nr = 1 };

	if (!p->alive)
		return false;
	if (op->page + op->nr > NR_PAGES || op->page < -1 || op->nr < 0)
		return false;
	switch (op->type) {
	case OP_MMAP:
		if (opt.same && op->kind == ZERO)
			return false;
		if (op->mmap_flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
			return op->page >= 0;
		return finds_gap(p, op->nr);
	case OP_MREMAP:
		if (op->page < 0)
			return false;
		if ((op->flags & (FIXED | DONTUNMAP)) &&
		    (op->to < 0 || op->to + op->new_nr > NR_PAGES))
			return false;
		first.page = op->page;
		if (!op->nr && range_has(p, &first, not_anon))
			return false;
		if (op->nth && (op->flags & DONTUNMAP))
			return false;
		if (opt.same && !depends_on_bytes_only(op))
			return false;
		if (!(op->flags & FIXED) && !finds_gap(p, op->new_nr))
			return false;
		/* Growth at the end of the arena ends at something else. */
		return op->new_nr <= NR_PAGES;
	case OP_MADVISE:
		if (op->flags == MADV_GUARD_INSTALL || op->flags == MADV_GUARD_REMOVE)
			return !range_has(p, op, not_anon) &&
			       !range_has(p, op, has_uffd);
		if (op->flags == MADV_COLLAPSE)
			return !range_has(p, op, not_anon) &&
			       !range_has(p, op, has_uffd);
		return op->page >= 0;
	case OP_FORK:
		return !m.proc[op->arg].alive && op->arg != (uint32_t)op->who;
	case OP_EXIT:
		return op->who;
	case OP_UFFD_REGISTER:
	case OP_UFFD_UNREGISTER:
		return !opt.same && range_is(p, op, ANON, false);
	case OP_UFFD_WP:
		return range_is(p, op, ANON, true);
	case OP_NAME:
		return op->page >= 0 && op->nr && has_names;
	default:
		return op->page >= 0;
	}
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
			if (!all && !is_present(who, page))
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
		m.proc[op->arg].pid = res->ret;
		control->pids[op->arg] = res->ret;
	}
	if (op->type == OP_EXIT) {
		control->pids[op->who] = 0;
		wait_for_exit(m.proc[op->who].pid);
	}
	why = apply(op, res);
	nr_done++;
	if (why || !p->alive)
		return why;
	why = check_layout(p);
	if (why)
		return why;
	if (op->type == OP_MREMAP || op->type == OP_MLOCK)
		why = check_books(p);
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
		why = check_flags(&m.proc[who]);
		if (!why)
			why = check_books(&m.proc[who]);
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
	books_start(&m.proc[0]);
	control->pids[0] = m.proc[0].pid;
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
