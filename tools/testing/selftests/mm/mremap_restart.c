// SPDX-License-Identifier: GPL-2.0
/*
 * mremap() of mergeable memory while a signal, or task work, is pending.
 *
 * Before memory is moved, its KSM pages are unshared. A pending signal ends
 * this, and the system call is restarted. So nothing may have changed by then:
 *
 *	  plain   mergeable              mapped as well
 *	|-------|-----------|          |-------------------|
 *	|   A   |     B     |   ---->  |   X               |
 *	|-------|-----------|          |-------------------|
 *	source                         target
 *
 * A signal that is pending before a system call is delivered before it. So a
 * tracer stops the child at the entry of mremap(), and makes the signal pending
 * there. No timing is involved.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/io_uring.h>
#include <linux/ptrace.h>

#include "kselftest_harness.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define PAGES_A 2
#define PAGES_B 2
#define PAGES (PAGES_A + PAGES_B)

/* What the child tells its parent, in shared memory */
struct report {
	int skip;			/* errno of what is not there */
	int handled;			/* Signals */
	bool source_kept;		/* when the signal was handled */
	bool target_kept;
	void *ret;
	int err;
	bool moved;			/* All bytes are at the target. */
	unsigned int completed;		/* Requests of io_uring */
};

struct area {
	size_t page_size;
	char *source;
	char *target;
	int eventfd;
	struct report *report;
};

struct move {
	int first_page;			/* of the source */
	int old_pages;
	int new_pages;
	int flags;
	bool task_work;			/* in place of a signal */
};

FIXTURE(restart)
{
	struct area area;
};

FIXTURE_VARIANT(restart)
{
	struct move move;
};

FIXTURE_VARIANT_ADD(restart, several)
{
	.move.old_pages = PAGES,
	.move.new_pages = PAGES,
};

FIXTURE_VARIANT_ADD(restart, several_dontunmap)
{
	.move.old_pages = PAGES,
	.move.new_pages = PAGES,
	.move.flags = MREMAP_DONTUNMAP,
};

FIXTURE_VARIANT_ADD(restart, several_task_work)
{
	.move.old_pages = PAGES,
	.move.new_pages = PAGES,
	.move.task_work = true,
};

FIXTURE_VARIANT_ADD(restart, several_dontunmap_task_work)
{
	.move.old_pages = PAGES,
	.move.new_pages = PAGES,
	.move.flags = MREMAP_DONTUNMAP,
	.move.task_work = true,
};

FIXTURE_VARIANT_ADD(restart, one)
{
	.move.first_page = PAGES_A,
	.move.old_pages = PAGES_B,
	.move.new_pages = PAGES_B,
};

FIXTURE_VARIANT_ADD(restart, one_shrinks)
{
	.move.first_page = PAGES_A,
	.move.old_pages = PAGES_B,
	.move.new_pages = PAGES_B - 1,
};

FIXTURE_SETUP(restart)
{
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	struct area *area = &self->area;
	char *ptr;

	area->page_size = sysconf(_SC_PAGESIZE);
	ptr = mmap(NULL, (2 * PAGES + 3) * area->page_size, PROT_NONE, flags, -1, 0);
	ASSERT_NE(ptr, MAP_FAILED);
	area->source = ptr + area->page_size;
	area->target = area->source + (PAGES + 1) * area->page_size;
	ASSERT_EQ(mprotect(area->source, PAGES * area->page_size, prot), 0);
	ASSERT_EQ(mprotect(area->target, PAGES * area->page_size, prot), 0);

	area->eventfd = eventfd(0, 0);
	ASSERT_GE(area->eventfd, 0);
	area->report = mmap(NULL, sizeof(*area->report), prot,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(area->report, MAP_FAILED);

	if (madvise(area->source + PAGES_A * area->page_size,
		    PAGES_B * area->page_size, MADV_MERGEABLE))
		SKIP(return, "no KSM");
}

FIXTURE_TEARDOWN(restart)
{
}

static char byte(int page)
{
	return 'A' + page;
}

static void fill(char *ptr, int pages, size_t page_size)
{
	for (int i = 0; i < pages; i++)
		memset(ptr + i * page_size, byte(i), page_size);
}

/* Are these pages mapped, and as filled? The first of them was number @first. */
static bool is_filled(char *ptr, int first, int pages, size_t page_size)
{
	unsigned char vec[PAGES];

	if (mincore(ptr, pages * page_size, vec))
		return false;
	for (size_t i = 0; i < pages * page_size; i++) {
		if (ptr[i] != byte(first + i / page_size))
			return false;
	}
	return true;
}

static struct area *child;

static void handler(int sig)
{
	struct report *report = child->report;

	report->handled++;
	report->source_kept = is_filled(child->source, 0, PAGES, child->page_size);
	report->target_kept = is_filled(child->target, 0, PAGES, child->page_size);
}

/*
 * Have io_uring wait for the eventfd: the completion is task work, which the
 * task is notified of as of a signal. Returns the tail of the completion ring.
 */
static unsigned int *poll_by_io_uring(int eventfd)
{
	struct io_uring_params p = {};
	struct io_uring_sqe *sqe;
	char *ring;
	int fd;

	fd = syscall(__NR_io_uring_setup, 1, &p);
	if (fd < 0)
		return NULL;
	ring = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(__u32),
		    PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	sqe = mmap(NULL, p.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE,
		   MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqe == MAP_FAILED)
		return NULL;

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_POLL_ADD;
	sqe->fd = eventfd;
	sqe->poll_events = POLLIN;
	*(__u32 *)(ring + p.sq_off.array) = 0;
	__atomic_store_n((__u32 *)(ring + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, fd, 1, 0, 0, NULL, 0) != 1)
		return NULL;
	return (unsigned int *)(ring + p.cq_off.tail);
}

static void run_child(struct area *area, const struct move *move)
{
	const size_t page_size = area->page_size;
	struct sigaction act = {
		.sa_handler = handler,
		.sa_flags = SA_RESTART,
	};
	struct report *report = area->report;
	unsigned int *completed = NULL;

	child = area;
	sigaction(SIGUSR1, &act, NULL);
	fill(area->source, PAGES, page_size);
	fill(area->target, PAGES, page_size);
	if (move->task_work) {
		completed = poll_by_io_uring(area->eventfd);
		if (!completed) {
			report->skip = errno;
			_exit(0);
		}
	}

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	report->ret = mremap(area->source + move->first_page * page_size,
			     move->old_pages * page_size,
			     move->new_pages * page_size,
			     MREMAP_MAYMOVE | MREMAP_FIXED | move->flags,
			     area->target);
	report->err = report->ret == MAP_FAILED ? errno : 0;
	report->moved = is_filled(area->target, move->first_page,
				  move->new_pages, page_size);
	if (completed)
		report->completed = __atomic_load_n(completed, __ATOMIC_ACQUIRE);
	_exit(0);
}

static bool enters_mremap(pid_t pid)
{
	struct ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) <= 0)
		return false;
	return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == __NR_mremap;
}

TEST_F(restart, keeps_all)
{
	const struct report *report = self->area.report;
	int status, err, sig = 0, calls = 0;
	pid_t pid;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		run_child(&self->area, &variant->move);

	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	if (report->skip)
		SKIP(return, "no io_uring: %s", strerror(report->skip));
	ASSERT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	ASSERT_EQ(ptrace(PTRACE_SETOPTIONS, pid, NULL,
			 PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);

	for (;;) {
		ASSERT_EQ(ptrace(PTRACE_SYSCALL, pid, NULL, sig), 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status))
			break;

		sig = WSTOPSIG(status);
		if (sig != (SIGTRAP | 0x80))
			continue;
		sig = 0;
		if (!enters_mremap(pid) || calls++)
			continue;
		err = variant->move.task_work ?
			eventfd_write(self->area.eventfd, 1) : kill(pid, SIGUSR1);
		ASSERT_EQ(err, 0);
	}
	ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ASSERT_GE(calls, 1);
	TH_LOG("mremap() was entered %d times", calls);

	if (variant->move.task_work) {
		ASSERT_EQ(report->completed, 1U);
	} else {
		ASSERT_EQ(report->handled, 1);
		if (calls > 1) {
			EXPECT_TRUE(report->source_kept);
			EXPECT_TRUE(report->target_kept);
		}
	}
	EXPECT_EQ(report->err, 0);
	EXPECT_EQ(report->ret, self->area.target);
	EXPECT_TRUE(report->moved);
}

TEST_HARNESS_MAIN
