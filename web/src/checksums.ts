const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 with the polynomial of zlib, PNG and gzip; `before` is that of the bytes before. */
export function crc32(bytes: Uint8Array, before = 0): number {
  let value = ~before;
  for (let i = 0; i < bytes.length; i++) value = TABLE[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

/** SHA-256 of "shape:" and the integers as little-endian int32: what the conformance corpus has in its manifest. */
export async function digest(shape: number[], values: ArrayLike<number>): Promise<string> {
  const head = new TextEncoder().encode(`${shape.join(",")}:`);
  const content = new Uint8Array(head.length + 4 * values.length);
  content.set(head);
  const view = new DataView(content.buffer, head.length);
  for (let i = 0; i < values.length; i++) view.setInt32(4 * i, values[i], true);
  const found = await crypto.subtle.digest("SHA-256", content);
  return Array.from(new Uint8Array(found), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
