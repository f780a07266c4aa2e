// SPDX-License-Identifier: GPL-2.0
/* Print calls as C, and a sequence as a program of its own. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

/* The two files, see the Makefile. */
extern const char replay_start[], replay_end[];

struct name {
	int value;
	const char *name;
};

static const char *names(int value, const struct name *n, char *buf)
{
	char *p = buf;

	*p = 0;
	for (; n->name; n++) {
		if ((value & n->value) != n->value || !n->value)
			continue;
		p += sprintf(p, "%s%s", p == buf ? "" : " | ", n->name);
		value &= ~n->value;
	}
	if (value || p == buf)
		sprintf(p, "%s%#x", p == buf ? "" : " | ", value);
	return buf;
}

static const struct name prots[] = {
	{ PROT_READ, "PROT_READ" }, { PROT_WRITE, "PROT_WRITE" },
	{ PROT_EXEC, "PROT_EXEC" }, {}
};

static const struct name mmap_names[] = {
	{ MAP_PRIVATE, "MAP_PRIVATE" }, { MAP_SHARED, "MAP_SHARED" },
	{ MAP_ANONYMOUS, "MAP_ANONYMOUS" }, { MAP_FIXED, "MAP_FIXED" },
	{ MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE" },
	{ MAP_NORESERVE, "MAP_NORESERVE" }, {}
};

static const struct name mremap_names[] = {
	{ MAYMOVE, "MREMAP_MAYMOVE" }, { FIXED, "MREMAP_FIXED" },
	{ DONTUNMAP, "MREMAP_DONTUNMAP" }, { RELOCATE, "MREMAP_RELOCATE_ANON" },
	{ MUST, "MREMAP_MUST_RELOCATE_ANON" }, {}
};

static const struct name advices[] = {
	{ 4, "MADV_DONTNEED" }, { 14, "MADV_HUGEPAGE" }, { 15, "MADV_NOHUGEPAGE" },
	{ 20, "MADV_COLD" }, { 21, "MADV_PAGEOUT" }, { 22, "MADV_POPULATE_READ" },
	{ 23, "MADV_POPULATE_WRITE" }, { 25, "MADV_COLLAPSE" },
	{ 102, "MADV_GUARD_INSTALL" }, { 103, "MADV_GUARD_REMOVE" }, {}
};

static const char *advice(int value)
{
	const struct name *n = advices;

	while (n->name && n->value != value)
		n++;
	return n->name ?: "-1";
}

static void format(const struct op *op, char *text)
{
	char a[200], b[200];

	switch (op->type) {
	case OP_MMAP:
		sprintf(text, "do_mmap(%d, %d, %s, %s)", op->page, op->nr,
			op->flags ? names(op->flags, prots, a) : "PROT_NONE",
			names(op->mmap_flags, mmap_names, b));
		break;
	case OP_MUNMAP:
		sprintf(text, "do_munmap(%d, %d)", op->page, op->nr);
		break;
	case OP_MREMAP:
		sprintf(text, "do_mremap(%d, %d, %d, %s, %d, %d, %d)", op->page,
			op->nr, op->new_nr, names(op->flags, mremap_names, a),
			op->to, op->off, op->nth);
		break;
	case OP_MPROTECT:
		sprintf(text, "do_mprotect(%d, %d, %s)", op->page, op->nr,
			op->flags ? names(op->flags, prots, a) : "PROT_NONE");
		break;
	case OP_MADVISE:
		sprintf(text, "do_madvise(%d, %d, %s)", op->page, op->nr,
			advice(op->flags));
		break;
	case OP_MLOCK:
		sprintf(text, "do_mlock(%d, %d)", op->page, op->nr);
		break;
	case OP_MUNLOCK:
		sprintf(text, "do_munlock(%d, %d)", op->page, op->nr);
		break;
	case OP_NAME:
		sprintf(text, "do_name(%d, %d, %u)", op->page, op->nr, op->arg);
		break;
	case OP_WRITE:
		sprintf(text, "do_write(%d, %d, %u)", op->page, op->nr, op->arg);
		break;
	case OP_READ:
		sprintf(text, "do_read(%d, %d)", op->page, op->nr);
		break;
	case OP_UFFD_REGISTER:
		sprintf(text, "do_uffd_register(%d, %d)", op->page, op->nr);
		break;
	case OP_UFFD_UNREGISTER:
		sprintf(text, "do_uffd_unregister(%d, %d)", op->page, op->nr);
		break;
	case OP_UFFD_WP:
		sprintf(text, "do_uffd_wp(%d, %d, %u)", op->page, op->nr, op->arg);
		break;
	case OP_MIGRATE:
		sprintf(text, "do_migrate(%d, %d, %d)", op->page, op->nr, op->arg);
		break;
	case OP_CLEAR_REFS:
		sprintf(text, "do_clear_refs()");
		break;
	default:
		strcpy(text, "0");
	}
}

void print_op(const struct op *op, const struct result *res)
{
	char text[512];

	format(op, text);
	if (op->type == OP_FORK)
		sprintf(text, "fork() -> %u", op->arg);
	else if (op->type == OP_EXIT)
		strcpy(text, "_exit(0)");
	printf("# %d: %s", op->who, text);
	if (res)
		printf(" = %ld%s", res->ret, res->injected ? " (injected)" : "");
	printf("\n");
	fflush(stdout);
}

void print_program(const struct op *ops, const struct result *res, int nr,
		   const char *why, uint64_t seed)
{
	static const char * const folios[] = {
		"none", "64 kB", "16 kB, 64 kB and 256 kB", "64 kB and 2 MB",
	};
	char text[512];
	const char *line;
	int i, who;

	fwrite(replay_start, 1, replay_end - replay_start, stdout);
	printf("\n/*\n * Seed %llu. The kernel that was tested:\n *\n",
	       (unsigned long long)seed);
	for (line = why; *line; line += strcspn(line, "\n"), line += *line == '\n')
		printf(" *\t%.*s\n", (int)strcspn(line, "\n"), line);
	printf(" *\n * Large folios: ");
	printf("%s", folios[thp_mode]);
	printf(", by transparent_hugepage/hugepages-*kB/enabled = always.\n */\n");
	printf("int main(void)\n{\n\tbegin();\n");
	for (i = 0; i < nr; i++) {
		if (ops[i].type == OP_FORK) {
			printf("\tFORK(%d, %d, %u);\n", i, ops[i].who, ops[i].arg);
			continue;
		}
		if (ops[i].type == OP_EXIT) {
			printf("\tEXIT(%d, %d);\n", i, ops[i].who);
			continue;
		}
		format(&ops[i], text);
		printf("\tSTEP(%d, %d)\n\t\tEXPECT(%s, %ld);\n", i, ops[i].who,
		       text, res[i].ret);
	}
	/* Then each process looks for its pages, in turn. */
	for (who = 0; who < NR_PROCS; who++) {
		int k, page, run;
		struct proc *p = &m.proc[who];

		if (!p->alive)
			continue;
		printf("\tSTEP(%d, %d) {\n\t\tshow();\n", i++, who);
		for (k = 0; k < p->nr; k++) {
			printf("\t\tEXPECT(do_migrate(%d, %d, -1), -1);\n",
			       p->v[k].start, p->v[k].end - p->v[k].start);
			printf("\t\tdo_madvise(%d, %d, MADV_PAGEOUT);\n",
			       p->v[k].start, p->v[k].end - p->v[k].start);
			for (page = p->v[k].start; page < p->v[k].end; page += run) {
				uint32_t stamp = stamp_at(p, page);

				run = 1;
				if (stamp == SKIP || p->p[page].guard ||
				    !(p->v[k].a.prot & PROT_READ))
					continue;
				while (page + run < p->v[k].end &&
				       !p->p[page + run].guard &&
				       stamp_at(p, page + run) ==
						(stamp ? stamp + run : 0))
					run++;
				printf("\t\tEXPECT(do_compare_all(%d, %d, %u), 1);\n",
				       page, run, stamp);
			}
		}
		printf("\t}\n");
	}
	printf("\treturn 0;\n}\n");
	fflush(stdout);
}
