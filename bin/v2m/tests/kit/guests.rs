//! Guests of one boot sector.

use super::Home;

/// Prints `>`, then sends back what it gets on the serial port.
pub const ECHO: &[u8] = &[
    0xfa, // cli: at each timer tick the firmware would take what comes in for keys
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, 0x3e, // mov al, '>'
    0xee, // out dx, al
    0xba, 0xfd, 0x03, // mov dx, 0x3fd: the line's status
    0xec, // in al, dx
    0x24, 0x21, // and al, 0x21: is there a byte, and room for one?
    0x3c, 0x21, // cmp al, 0x21
    0x75, 0xf9, // jne to the in
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xec, // in al, dx
    0xee, // out dx, al
    0xeb, 0xef, // jmp to the status
];

pub fn boot_sector(code: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(code);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Writes `NAME.toml`: a VM on the disk `echo.raw`.
pub fn echo(home: &Home, name: &str) -> String {
    home.file("echo.raw", boot_sector(ECHO));
    let file = format!("{name}.toml");
    let text = format!(
        "name = \"{name}\"\ntype = \"qemu\"\nmemory = \"16M\"\n\
         [[disk]]\npath = \"echo.raw\"\nformat = \"raw\"\nread-only = true\n"
    );
    home.file(&file, text);
    file
}

/// Writes `w` to the serial port for each 32 KiB that it has written to its own disk, from 1 MiB on, and `!` at the end, when
/// the firmware refuses: there is no more disk.
pub const WRITER: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0xbe, 0x40, 0x7c, // mov si, 0x7c40: the packet below
    0xb4, 0x43, // mov ah, 0x43: extended write
    0xb0, 0x00, // mov al, 0
    0xb2, 0x80, // mov dl, 0x80
    0xcd, 0x13, // int 0x13
    0xb0, 0x21, // mov al, '!'
    0x72, 0x10, // jc to the end
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, 0x77, // mov al, 'w'
    0xee, // out dx, al
    0x83, 0x44, 0x08, 0x40, // add word [si+8], 64
    0x83, 0x54, 0x0a, 0x00, // adc word [si+10], 0
    0xeb, 0xe1, // jmp to the mov si
    0xba, 0xf8, 0x03, // the end: mov dx, 0x3f8
    0xee, // out dx, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

/// What [`WRITER`] tells the firmware: 64 sectors from 0x8000:0 to sector 2048 on (int 13h extensions, Phoenix 1998).
pub const PACKET: &[u8] = &[
    0x10, 0, 64, 0, 0x00, 0x00, 0x00, 0x80, 0x00, 0x08, 0, 0, 0, 0, 0, 0,
];
