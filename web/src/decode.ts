import { checkKind, KIND_BYTES, parse } from "./bitstream";
import { digest } from "./checksums";
import { BitstreamError } from "./errors";
import { alphaOf, notShown, regionsOf } from "./fields";
import { decodeLatents, type Latents } from "./latents";
import type { Models } from "./models";
import { Volume } from "./volume";

// A page has no more memory than this takes: about 30 bytes a pixel beside what the runtime needs.
const MAX_PIXELS = 2 ** 26;
const TILE = 512; // pixels a side of what is synthesized at a time

/** A decoded picture; pixels: red, green, blue, alpha of each. */
export interface Decoded {
  model: string;
  family: string;
  width: number;
  height: number;
  bytes: number;
  pixels: Uint8ClampedArray<ArrayBuffer>;
  latents: Latents;
  notShown: string[];
  /** Milliseconds. */
  symbolsTook: number;
  pixelsTook: number;
}

/** Told what is done, and which share of it, 0 to 1. */
export type Progress = (what: string, share: number) => void;

/** modelsOf: of an identity; rejects with what is wrong where there are none. */
export async function decode(file: Blob, modelsOf: (identity: string) => Promise<Models>, progress: Progress): Promise<Decoded> {
  checkKind(new Uint8Array(await file.slice(0, KIND_BYTES).arrayBuffer())); // before a large file is read
  const stream = parse(new Uint8Array(await file.arrayBuffer()));
  const { width, height } = stream;
  if (width * height > MAX_PIXELS) {
    throw new BitstreamError(`the image has ${width}×${height} pixels: this page has memory for ${MAX_PIXELS}`);
  }
  progress("model", 0);
  const models = await modelsOf(stream.model);
  const regions = regionsOf(stream, models.about.stride);
  const alpha = await alphaOf(stream);

  const start = performance.now();
  const parts: Latents[] = [];
  for (const region of regions) {
    progress("symbols", parts.length / regions.length);
    parts.push(await decodeLatents(models, region.strings, region.rows, region.columns));
  }
  const size = [Math.ceil(height / models.about.stride), Math.ceil(width / models.about.stride)];
  const joined = (name: keyof Latents) => join(parts.map((part) => part[name]), regions, size);
  const latents = { z: joined("z"), y: joined("y") as Volume, means: joined("means"), yHat: joined("yHat") };
  const between = performance.now();
  const pixels = await synthesize(models, latents, width, height, alpha, progress);
  return {
    model: stream.model,
    family: models.about.family,
    width,
    height,
    bytes: file.size,
    pixels,
    latents,
    notShown: notShown(stream),
    symbolsTook: between - start,
    pixelsTook: performance.now() - between,
  };
}

/** One volume of those of all regions; size: of the whole in coded positions. */
function join(parts: (Volume | null)[], regions: { top: number; left: number; rows: number }[], size: number[]): Volume | null {
  const [first] = parts;
  if (!first || parts.length === 1) return first;
  const ratio = first.rows / regions[0].rows;
  const whole = new Volume(first.channels, size[0] * ratio, size[1] * ratio);
  parts.forEach((part, i) => part && whole.put(part, regions[i].top * ratio, regions[i].left * ratio));
  return whole;
}

/** Tile by tile, each with as much around it as its pixels depend on: the same as in one go, in bounded memory. */
async function synthesize(
  models: Models,
  latents: Latents,
  width: number,
  height: number,
  alpha: Uint8Array | null,
  progress: Progress,
): Promise<Uint8ClampedArray<ArrayBuffer>> {
  const { stride, margin } = models.about.synthesis;
  const tile = Math.max(1, Math.floor(TILE / stride));
  const [rows, columns] = [Math.ceil(height / stride), Math.ceil(width / stride)];
  const pixels = new Uint8ClampedArray(4 * width * height);
  let done = 0;
  for (let top = 0; top < rows; top += tile) {
    for (let left = 0; left < columns; left += tile) {
      progress("pixels", (done++ * tile * tile) / (rows * columns));
      const [firstRow, firstColumn] = [Math.max(0, top - margin), Math.max(0, left - margin)];
      const lastRow = Math.min(latents.y.rows, top + tile + margin);
      const lastColumn = Math.min(latents.y.columns, left + tile + margin);
      const part = (volume: Volume) => volume.cut(firstRow, firstColumn, lastRow - firstRow, lastColumn - firstColumn).plane();
      const inputs = { y_symbols: part(latents.y), ...(latents.means ? { means: part(latents.means) } : {}) };
      const [{ data, dims }] = await models.run("synthesis", inputs);
      const bottom = Math.min((top + tile) * stride, height);
      const right = Math.min((left + tile) * stride, width);
      for (let row = top * stride; row < bottom; row++) {
        for (let column = left * stride; column < right; column++) {
          const from = 3 * ((row - firstRow * stride) * dims[2] + column - firstColumn * stride);
          const at = row * width + column;
          for (let c = 0; c < 3; c++) pixels[4 * at + c] = data[from + c];
          pixels[4 * at + 3] = alpha ? alpha[at] : 255;
        }
      }
    }
  }
  return pixels;
}

/** SHA-256 of what two decoders must agree on, as the conformance corpus has them; pixels without their alpha. */
export async function digests(decoded: Decoded): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const { z, y, yHat } = decoded.latents;
  for (const [name, volume] of Object.entries({ z, y, ŷ: yHat })) {
    if (volume) found[name] = await digest([volume.channels, volume.rows, volume.columns], volume.data);
  }
  const colours = decoded.pixels.filter((_, i) => i % 4 < 3);
  found.pixels = await digest([decoded.height, decoded.width, 3], colours);
  return found;
}
