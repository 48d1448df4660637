import { crc32 } from "./checksums";
import { BitstreamError } from "./errors";

/** One coded image. model: its identity in hexadecimal digits; fields: kind → contents. */
export interface Bitstream {
  model: string;
  width: number;
  height: number;
  strings: Uint8Array[];
  fields: Map<number, Uint8Array>;
}

export const FIELD = { profile: 1, exif: 2, xmp: 3, density: 4, alpha: 5, regions: 6 } as const;
/** As many bytes as tell what kind of file it is. */
export const KIND_BYTES = 5;

const MAGIC = [0x4c, 0x49, 0x43, 0x49];
const HEADER = 22;
const CRC = 4;
const MAX_SIDE = 2 ** 20;
const MAX_PIXELS = 2 ** 28;
const OTHERS: [number[], string][] = [
  [[0xff, 0xd8, 0xff], "a JPEG image"],
  [[0x89, 0x50, 0x4e, 0x47], "a PNG image"],
  [[0x4c, 0x49, 0x43, 0x51], "a model (.licq)"],
  [[0x47, 0x49, 0x46, 0x38], "a GIF image"],
  [[0x52, 0x49, 0x46, 0x46], "a WebP or another RIFF file"],
];

/** Throws unless a file that begins so may be a .lic file of a known version. */
export function checkKind(head: Uint8Array): void {
  const begins = (start: number[]): boolean => start.every((byte, i) => head[i] === byte);
  if (!head.length) throw new BitstreamError("not a .lic file: it is empty");
  if (!begins(MAGIC.slice(0, head.length))) {
    const other = OTHERS.find(([start]) => begins(start));
    throw new BitstreamError(`not a .lic file: ${other ? `this is ${other[1]}` : "it does not begin with LICI"}`);
  }
  if (head.length > 4 && head[4] !== 1 && head[4] !== 2) {
    throw new BitstreamError(`unknown version ${head[4]} of the .lic format; this page reads versions 1 and 2`);
  }
}

export function parse(data: Uint8Array): Bitstream {
  checkKind(data);
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const truncated = (what: string) => new BitstreamError(`truncated .lic file: ${data.length} bytes do not hold ${what}`);
  if (data.length < HEADER + CRC) throw truncated("the header");
  const count = data[21];
  const first = HEADER + 4 * count;
  if (data.length < first + CRC) throw truncated("the lengths of its strings");
  const lengths = Array.from({ length: count }, (_, i) => view.getUint32(HEADER + 4 * i, true));
  const table = data[4] === 2 ? fieldTable(data, first + sum(lengths)) : null;
  const after = table?.end ?? first + sum(lengths);
  const size = after + sum(table?.sizes ?? []) + CRC;
  if (data.length !== size) {
    throw new BitstreamError(`${data.length < size ? "truncated" : "too long a"} .lic file: ${data.length} bytes instead of ${size}`);
  }
  if (view.getUint32(size - CRC, true) !== crc32(data.subarray(0, size - CRC))) {
    throw new BitstreamError("damaged .lic file: the checksum does not match");
  }
  const [width, height] = [view.getUint32(13, true), view.getUint32(17, true)];
  if (!width || !height) throw new BitstreamError(`the image has no pixels: ${width}×${height}`);
  if (Math.max(width, height) > MAX_SIDE || width * height > MAX_PIXELS) {
    throw new BitstreamError(`the image is too large: ${width}×${height} pixels`);
  }
  const fields = table ? cut(data, after, table.sizes).map((content, i) => [table.kinds[i], content] as const) : [];
  const model = Array.from(data.subarray(5, 13), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { model, width, height, strings: cut(data, first, lengths), fields: new Map(fields) };
}

/** A file of version 1. */
export function toBytes({ model, width, height, strings }: Omit<Bitstream, "fields">): Uint8Array<ArrayBuffer> {
  const first = HEADER + 4 * strings.length;
  const size = first + sum(strings.map((string) => string.length)) + CRC;
  const data = new Uint8Array(size);
  const view = new DataView(data.buffer);
  data.set([...MAGIC, 1, ...model.match(/../g)!.map((byte) => parseInt(byte, 16))]);
  view.setUint32(13, width, true);
  view.setUint32(17, height, true);
  data[21] = strings.length;
  let at = first;
  strings.forEach((string, i) => {
    view.setUint32(HEADER + 4 * i, string.length, true);
    data.set(string, at);
    at += string.length;
  });
  view.setUint32(at, crc32(data.subarray(0, at)), true);
  return data;
}

function fieldTable(data: Uint8Array, at: number): { kinds: number[]; sizes: number[]; end: number } {
  const count = at < data.length ? data[at] : 0;
  const end = at + 1 + 5 * count;
  if (data.length < end + CRC) {
    throw new BitstreamError(`truncated .lic file of version ${data[4]}: ${data.length} bytes do not hold its fields`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const places = Array.from({ length: count }, (_, i) => at + 1 + 5 * i);
  const kinds = places.map((place) => data[place]);
  if (!count || kinds.some((kind, i) => kind <= (i ? kinds[i - 1] : 0))) {
    throw new BitstreamError("damaged .lic file: its fields are not one of each kind, in ascending order");
  }
  return { kinds, sizes: places.map((place) => view.getUint32(place + 1, true)), end };
}

function cut(data: Uint8Array, at: number, lengths: number[]): Uint8Array[] {
  return lengths.map((length) => data.subarray(at, (at += length)));
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
