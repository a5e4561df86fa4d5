# The probe's guest: one boot sector that does what a kernel does first, and says so.
#
# Some hosts have a /dev/kvm that runs firmware and little else: without virtualization in the CPU (KVM on page tables,
# "pvm") a stock kernel's every instruction is emulated, and it looks as if it hung. So this guest goes on: protected and
# long mode with paging, CPUID, the model-specific registers that Linux touches early, an interrupt that ends a HLT, and
# then 67 million rounds of a loop with a store: 0.1 s on any real CPU or under TCG, minutes where it is emulated.
# It ends QEMU through the debug exit device: value 0x31, which is exit status 0x63. If it hangs, nobody hears of it.
#
# Loaded at 0x7c00 by the firmware. Page tables at 0x1000, interrupt table at 0x4000.

.pushsection .rodata.oscarv_probe_guest, "a"
.globl oscarv_probe_guest
.globl oscarv_probe_guest_end
.balign 16
oscarv_probe_guest:
.code16
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x7c00, %esp
    cld

    # Tables: all zero but one 2 MiB page, mapped to itself.
    movw $0x1000, %di
    movw $0x2000, %cx
    rep stosw
    movw $0x2003, 0x1000
    movw $0x3003, 0x2000
    movw $0x0083, 0x3000
    # Interrupt 0x20: a gate of long mode, 16 bytes.
    movw $(0x7c00 + 2f - oscarv_probe_guest), 0x4200
    movw $0x08, 0x4202
    movw $0x8e00, 0x4204

    movl $0x1000, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    lgdtw (0x7c00 + 4f - oscarv_probe_guest)
    lidtw (0x7c00 + 5f - oscarv_probe_guest)
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    # A far jump to 0x08:1f, spelled out.
    .byte 0xea
    .word 0x7c00 + 1f - oscarv_probe_guest
    .word 0x08

.code64
1:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss

    xorl %esi, %esi
3:  # CPUID leaves 0 to 15.
    movl %esi, %eax
    xorl %ecx, %ecx
    cpuid
    incl %esi
    cmpl $16, %esi
    jne 3b
    movl $0x80000001, %eax
    cpuid

    # Read: APIC base, microcode revision, PAT. Written: LSTAR, GS base; then back through swapgs.
    movl $0x1b, %ecx
    rdmsr
    movl $0x8b, %ecx
    rdmsr
    movl $0x277, %ecx
    rdmsr
    wrmsr
    movl $0xc0000082, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    movl $0xc0000101, %ecx
    wrmsr
    swapgs
    rdtsc

    # Interrupt controller: vectors from 0x20, only the timer; timer: 1 kHz.
    movb $0x11, %al
    outb %al, $0x20
    movb $0x20, %al
    outb %al, $0x21
    movb $0x04, %al
    outb %al, $0x21
    movb $0x01, %al
    outb %al, $0x21
    movb $0xfe, %al
    outb %al, $0x21
    movb $0x34, %al
    outb %al, $0x43
    movb $0xa9, %al
    outb %al, $0x40
    movb $0x04, %al
    outb %al, $0x40
    xorl %ebx, %ebx
    sti
6:  hlt
    # A tick each; a new address space in between.
    movq %cr3, %rax
    movq %rax, %cr3
    cmpl $10, %ebx
    jb 6b
    cli

    movl $(1 << 26), %ecx
9:  movl %ecx, 0x6000
    addl %ecx, %eax
    decl %ecx
    jnz 9b
    movb $0x31, %al
    outb %al, $0xf4
7:  hlt
    jmp 7b

2:  # The timer's interrupt.
    incl %ebx
    movb $0x20, %al
    outb %al, $0x20
    iretq

.balign 8
8:  # Descriptors: none, 64-bit code, data.
    .quad 0
    .quad 0x00209a0000000000
    .quad 0x0000920000000000
4:  .word 23
    .long 0x7c00 + 8b - oscarv_probe_guest
5:  .word 0x20f
    .long 0x4000
    .org oscarv_probe_guest + 510
    .byte 0x55, 0xaa
oscarv_probe_guest_end:
.code64
.popsection
