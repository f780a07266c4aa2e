// SPDX-License-Identifier: GPL-2.0
/* The processes under test: each does what it is told, one call at a time. */
#include "replay.h"
#include "fuzz.h"

struct control *control;
int command_pipe[NR_PROCS][2], answer_pipe[2];
bool has_names;

unsigned long arena_base(void)
{
	return (unsigned long)base;
}

void worker_setup(void)
{
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (control == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	arena_setup();
	do_mmap(0, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
	has_names = !do_name(0, 1, 1);
	do_munmap(0, 1);
}

static void compare(struct result *res)
{
	int i, same;

	res->ret = -1;
	for (i = 0; i < NR_PAGES; i++) {
		if (control->want[i] == SKIP)
			continue;
		same = do_compare(i, control->want[i]);
		if (same == 1)
			continue;
		res->ret = i;
		res->sig = same < 0 ? fault_signal : 0;
		res->word = wrong_word;
		res->index = wrong_index;
		return;
	}
}

static void execute(const struct op *op, struct result *res)
{
	long ret = 0;

	fault_signal = 0;
	injected = false;
	switch (op->type) {
	case OP_MMAP:
		ret = do_mmap(op->page, op->nr, op->flags, op->mmap_flags);
		break;
	case OP_MUNMAP:
		ret = do_munmap(op->page, op->nr);
		break;
	case OP_MREMAP:
		ret = do_mremap(op->page, op->nr, op->new_nr, op->flags, op->to,
				op->off, op->nth);
		break;
	case OP_MPROTECT:
		ret = do_mprotect(op->page, op->nr, op->flags);
		break;
	case OP_MADVISE:
		ret = do_madvise(op->page, op->nr, op->flags);
		break;
	case OP_MLOCK:
		ret = do_mlock(op->page, op->nr);
		break;
	case OP_MUNLOCK:
		ret = do_munlock(op->page, op->nr);
		break;
	case OP_NAME:
		ret = do_name(op->page, op->nr, op->arg);
		break;
	case OP_WRITE:
		ret = do_write(op->page, op->nr, op->arg);
		break;
	case OP_READ:
		ret = do_read(op->page, op->nr);
		break;
	case OP_UFFD_REGISTER:
		ret = do_uffd_register(op->page, op->nr);
		break;
	case OP_UFFD_UNREGISTER:
		ret = do_uffd_unregister(op->page, op->nr);
		break;
	case OP_UFFD_WP:
		ret = do_uffd_wp(op->page, op->nr, op->arg);
		break;
	case OP_MIGRATE:
		ret = do_migrate(op->page, op->nr, op->arg);
		break;
	case OP_CLEAR_REFS:
		ret = do_clear_refs();
		break;
	case OP_COMPARE:
		compare(res);
		return;
	}
	res->ret = ret;
	res->sig = fault_signal;
	res->injected = injected;
}

void worker(int me)
{
	volatile char stack[32768];
	char byte;
	long pid;
	int null;

	/* It must not grow later, for VmSize. */
	memset((char *)stack, 0, sizeof(stack));
	catch_faults();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* If it hangs, nobody should wait for the end of its output. */
	null = open("/dev/null", O_RDWR);
	dup2(null, 1);
	dup2(null, 2);
	while (read(command_pipe[me][0], &byte, 1) == 1) {
		struct op op = control->op;
		struct result res = {};

		if (op.type == OP_FORK) {
			pid = fork();
			if (!pid) {
				me = op.arg;
				forget_parent();
				continue;
			}
			res.ret = pid < 0 ? -errno : pid;
		} else if (op.type != OP_EXIT) {
			execute(&op, &res);
		}
		control->res = res;
		if (write(answer_pipe[1], &byte, 1) != 1 || op.type == OP_EXIT)
			_exit(0);
	}
	_exit(0);
}
