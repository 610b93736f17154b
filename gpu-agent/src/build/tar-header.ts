/** Header of a plain file in a ustar archive, with nothing in it but path, size and executable bit. A path of more than 100 bytes has a pax header before it. */
export function tarHeader({ path, bytes, executable }: { path: string; bytes: number; executable: boolean }): Buffer {
  if (Buffer.byteLength(path) <= 100) return block(path, bytes, executable, "0");
  const record = paxRecord(`path=${path}`);
  const padding = Buffer.alloc(-record.length & 511);
  return Buffer.concat([block("pax", record.length, false, "x"), record, padding, block("long", bytes, executable, "0")]);
}

/** "NN key=value\n", where NN counts itself. */
function paxRecord(text: string): Buffer {
  const bytes = Buffer.byteLength(text) + 2;
  let length = bytes;
  while (length !== bytes + String(length).length) length = bytes + String(length).length;
  return Buffer.from(`${length} ${text}\n`);
}

function block(path: string, bytes: number, executable: boolean, type: string): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number): number =>
    header.write(`${value.toString(8).padStart(width - 1, "0")}\0`, at, "latin1");
  header.write(path, 0, 100, "utf8");
  octal(executable ? 0o755 : 0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(bytes, 124, 12);
  octal(0, 136, 12);
  header.write("        ", 148, "latin1");
  header.write(type, 156, "latin1");
  header.write("ustar\x0000", 257, "latin1");
  const sum = header.reduce((a, b) => a + b, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return header;
}
