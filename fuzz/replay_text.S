/* SPDX-License-Identifier: GPL-2.0 */
	.section .rodata
	.globl replay_start, replay_end
replay_start:
	.incbin "replay.h"
	.incbin "replay_main.h"
replay_end:
	.section .note.GNU-stack,"",@progbits
