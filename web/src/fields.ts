import { FIELD, type Bitstream } from "./bitstream";
import { BitstreamError } from "./errors";

const MIN_SIDE = 1024;

/** A square of the picture that is coded as if it were a picture of its own; rows and columns in coded positions. */
export interface Region {
  top: number;
  left: number;
  rows: number;
  columns: number;
  strings: Uint8Array[];
}

/** stride: pixels for each coded position. One region, the whole, unless the file says otherwise. */
export function regionsOf(stream: Bitstream, stride: number): Region[] {
  const [height, width] = [Math.ceil(stream.height / stride), Math.ceil(stream.width / stride)];
  const content = stream.fields.get(FIELD.regions);
  if (!content) return [{ top: 0, left: 0, rows: height, columns: width, strings: stream.strings }];
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const side = content.length >= 4 ? view.getUint32(0, true) : 0;
  if (side < MIN_SIDE || side % stride) throw new BitstreamError(`damaged .lic file: regions of ${side} pixels a side`);
  const step = side / stride;
  const count = Math.ceil(height / step) * Math.ceil(width / step);
  const strings = stream.strings.length;
  if (content.length - 4 !== 4 * count * strings) {
    throw new BitstreamError(`damaged .lic file: ${content.length - 4} bytes of lengths for ${count} regions`);
  }
  const ends = new Array<number>(strings).fill(0);
  const regions: Region[] = [];
  for (let top = 0; top < height; top += step) {
    for (let left = 0; left < width; left += step) {
      const own = stream.strings.map((string, i) => {
        const length = view.getUint32(4 + 4 * (regions.length * strings + i), true);
        return string.subarray(ends[i], (ends[i] += length));
      });
      regions.push({ top, left, rows: Math.min(step, height - top), columns: Math.min(step, width - left), strings: own });
    }
  }
  if (stream.strings.some((string, i) => string.length !== ends[i])) {
    throw new BitstreamError("damaged .lic file: its regions do not have the strings that it holds");
  }
  return regions;
}

/** The plane of transparency, row by row; null where there is none. */
export async function alphaOf(stream: Bitstream): Promise<Uint8Array | null> {
  const content = stream.fields.get(FIELD.alpha);
  if (!content) return null;
  const plane = await inflated(content, stream.width * stream.height);
  for (let i = stream.width; i < plane.length; i++) plane[i] += plane[i - stream.width];
  return plane;
}

/** What a picture carries that a page does not show, in words. */
export function notShown(stream: Bitstream): string[] {
  const names: [number, string][] = [[FIELD.profile, "colour profile"], [FIELD.exif, "EXIF"], [FIELD.xmp, "XMP"]];
  return names.filter(([kind]) => stream.fields.has(kind)).map(([, name]) => name);
}

/** Exactly so many bytes of the zlib format; what is longer is not unpacked to its end. */
async function inflated(content: Uint8Array, size: number): Promise<Uint8Array> {
  const problem = new BitstreamError(`damaged .lic file: its alpha cannot be unpacked to ${size} bytes`);
  const found = new Uint8Array(size <= 1032 * content.length ? size : 0); // deflate makes at most 1032 bytes of one
  let at = 0;
  try {
    const unpacking = new Blob([content.slice()]).stream().pipeThrough(new DecompressionStream("deflate"));
    const reader = unpacking.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      found.set(piece.value, at); // throws where it is longer
      at += piece.value.length;
    }
  } catch {
    throw problem;
  }
  if (at !== size) throw problem;
  return found;
}
