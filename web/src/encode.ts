import { toBytes } from "./bitstream";
import type { Progress } from "./decode";
import { readImage } from "./image";
import type { Models, Plane } from "./models";
import { placeOf, throughPasses, type Pass } from "./passes";
import type { CodingTables } from "./tables";
import { Volume } from "./volume";
import { Writer } from "./writer";

const INT32_MAX = 2 ** 31 - 1;
const TILE = 512; // pixels a side of what is analysed at a time, beside its margins

/** Symbols that are coded together, and the table of each. */
interface Group {
  index: ArrayLike<number>;
  symbols: Int32Array;
}

/** A PNG or JPEG file, or whatever else the browser reads, as a .lic file. */
export async function encode(file: Blob, models: Models, progress: Progress): Promise<Uint8Array<ArrayBuffer>> {
  const image = await readImage(file, models.about.stride);
  const { z: zTables, y: yTables } = models.tables;
  const [first, y] = await analysed(models, image, progress);
  const strings = [coded(zTables ?? yTables, [{ index: (zTables ?? yTables).ofChannels(first.positions), symbols: first.data }])];
  if (zTables) {
    progress("coding", 0);
    const groups: Group[] = [];
    await throughPasses(models, first, (pass) => {
      const symbols = chosen(models, y, pass);
      groups.push({ index: pass.index, symbols });
      return symbols;
    });
    strings.push(coded(yTables, groups));
  }
  return toBytes({ model: models.about.model, width: image.width, height: image.height, strings });
}

/** One string: a stack gives back what it got in reverse. */
function coded(tables: CodingTables, groups: Group[]): Uint8Array {
  const writer = new Writer();
  for (const { index, symbols } of groups.reverse()) tables.encode(writer, index, symbols);
  return writer.bytes();
}

/** The symbols of a pass. y: symbols already where the family has one pass, else what they are chosen for. */
function chosen({ about }: Models, y: Volume, pass: Pass): Int32Array {
  const bits = about.fraction_bits!;
  const [unit, finer] = [2 ** bits.y, 2 ** (bits.y - bits.y_hat)];
  return Int32Array.from(pass.index, (_, i) => {
    const value = y.data[placeOf(y, pass, i)];
    if (!about.order) return value;
    const symbol = Math.floor((value - pass.means[i] * finer + Math.floor(unit / 2)) / unit);
    return Math.max(-INT32_MAX, Math.min(INT32_MAX, symbol));
  });
}

/** What analysis gives, tile by tile, each with as much around it as its symbols depend on. */
async function analysed(models: Models, image: ImageData, progress: Progress): Promise<Volume[]> {
  const { stride, analysis } = models.about;
  const tile = Math.max(1, Math.floor(TILE / stride));
  const [rows, columns] = [image.height, image.width].map((pixels) => Math.ceil(pixels / stride));
  const found: Volume[] = [];
  let done = 0;
  for (let top = 0; top < rows; top += tile) {
    for (let left = 0; left < columns; left += tile) {
      progress("analysis", (done++ * tile * tile) / (rows * columns));
      const [height, width] = [Math.min(tile, rows - top), Math.min(tile, columns - left)];
      const [firstRow, firstColumn] = [Math.max(0, top - analysis.margin), Math.max(0, left - analysis.margin)];
      const lastRow = Math.min(rows, top + height + analysis.margin);
      const lastColumn = Math.min(columns, left + width + analysis.margin);
      const piece = colours(image, [firstRow, lastRow, firstColumn, lastColumn].map((n) => n * stride));
      (await models.run("analysis", { image: piece })).forEach(({ data, dims: [, count, high, wide] }, i) => {
        const ratio = high / (lastRow - firstRow);
        const own = new Volume(count, high, wide, data as Int32Array);
        found[i] ??= new Volume(count, rows * ratio, columns * ratio);
        const [down, right] = [(top - firstRow) * ratio, (left - firstColumn) * ratio];
        found[i].put(own.cut(down, right, height * ratio, width * ratio), top * ratio, left * ratio);
      });
    }
  }
  return found;
}

/** uint8 [1, rows, columns, 3] of a part, as far as the image goes. */
function colours({ data, width, height }: ImageData, [top, bottom, left, right]: number[]): Plane {
  const [rows, columns] = [Math.min(bottom, height) - top, Math.min(right, width) - left];
  const found = new Uint8Array(rows * columns * 3);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = 4 * ((top + row) * width + left + column);
      for (let c = 0; c < 3; c++) found[at++] = data[from + c];
    }
  }
  return { data: found, dims: [1, rows, columns, 3] };
}
