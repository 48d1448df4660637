import type { Integers, Models, Order, Plane } from "./models";
import { Stack } from "./ans";
import { BitstreamError } from "./errors";

const INT32_MAX = 2 ** 31 - 1;

/** Integers [channels, rows, columns]. */
export class Volume {
  readonly data: Int32Array;

  constructor(
    readonly channels: number,
    readonly rows: number,
    readonly columns: number,
    data?: Int32Array,
  ) {
    this.data = data ?? new Int32Array(channels * rows * columns);
  }

  get positions(): number {
    return this.rows * this.columns;
  }

  /** Puts a smaller one into this, its top left corner there. */
  put(part: Volume, top: number, left: number): void {
    for (let c = 0; c < part.channels; c++) {
      for (let row = 0; row < part.rows; row++) {
        const from = c * part.positions + row * part.columns;
        const to = c * this.positions + (top + row) * this.columns + left;
        this.data.set(part.data.subarray(from, from + part.columns), to);
      }
    }
  }

  /** A copy of some rows and columns of all channels. */
  cut(top: number, left: number, rows: number, columns: number): Volume {
    const part = new Volume(this.channels, rows, columns);
    for (let c = 0; c < this.channels; c++) {
      for (let row = 0; row < rows; row++) {
        const from = c * this.positions + (top + row) * this.columns + left;
        part.data.set(this.data.subarray(from, from + columns), c * part.positions + row * columns);
      }
    }
    return part;
  }

  plane(first = 0, count = this.channels): Plane {
    const data = this.data.slice(first * this.positions, (first + count) * this.positions);
    return { data, dims: [1, count, this.rows, this.columns] };
  }
}

/** What is decoded of a picture or a region. yHat, means: in units of 2^−bits; null where the family has none. */
export interface Latents {
  z: Volume | null;
  y: Volume;
  means: Volume | null;
  yHat: Volume | null;
}

/** The symbols of all strings, for so many coded positions. */
export async function decodeLatents(models: Models, strings: Uint8Array[], rows: number, columns: number): Promise<Latents> {
  const { z: zTables, y: yTables } = models.tables;
  const wanted = zTables ? 2 : 1;
  if (strings.length !== wanted) throw new BitstreamError(`the file has ${strings.length} strings instead of ${wanted}`);
  const stacks = strings.map((string) => new Stack(string));
  const first = zTables ?? yTables;
  const channel = Int32Array.from({ length: first.count * rows * columns }, (_, i) => Math.floor(i / (rows * columns)));
  const coded = new Volume(first.count, rows, columns, first.decode(stacks[0], channel));
  stacks[0].finish();
  if (!zTables) return { z: null, y: coded, means: null, yHat: null };
  const hyper = await models.run("hyper", { z_symbols: coded.plane() });
  const pass = hyper.length === 2 ? await atOnce(models, stacks[1], hyper) : await inPasses(models, stacks[1], hyper[0]);
  stacks[1].finish();
  return { z: coded, y: pass.y, means: pass.means, yHat: pass.yHat };
}

async function atOnce(models: Models, stack: Stack, [index, means]: Plane[]): Promise<Passes> {
  const [, channels, rows, columns] = index.dims;
  const passes = new Passes(models, stack, channels, rows, columns);
  passes.decode(0, index.data, means.data, null);
  return passes;
}

async function inPasses(models: Models, stack: Stack, hyper: Plane): Promise<Passes> {
  const order = models.about.order;
  const [rows, columns] = hyper.dims.slice(2);
  const channels = order.kind === "checkerboard" ? order.groups.reduce((a, b) => a + b, 0) : models.about.synthesis.channels;
  const passes = new Passes(models, stack, channels, rows, columns);
  if (order.kind === "diagonals") await alongDiagonals(models, passes, hyper, order);
  else if (order.kind === "checkerboard") await asCheckerboards(models, passes, hyper, order.groups);
  return passes;
}

/** The latent y on its way. */
class Passes {
  readonly y: Volume;
  readonly means: Volume;
  readonly yHat: Volume;
  private readonly step: number;

  constructor(
    private readonly models: Models,
    private readonly stack: Stack,
    channels: number,
    rows: number,
    columns: number,
  ) {
    this.y = new Volume(channels, rows, columns);
    this.means = new Volume(channels, rows, columns);
    this.yHat = new Volume(channels, rows, columns);
    this.step = 2 ** (models.about.fraction_bits?.y_hat ?? 0);
  }

  /**
   * One group: some channels from the first on, all positions of a plane or those that are given.
   * index, means: [channels, positions of the group]
   */
  decode(first: number, index: Integers, means: Integers, places: number[] | null): void {
    const symbols = this.models.tables.y.decode(this.stack, index);
    const positions = this.y.positions;
    const count = places ? places.length : positions;
    for (let i = 0; i < symbols.length; i++) {
      const place = i % count;
      const at = (first + Math.floor(i / count)) * positions + (places ? places[place] : place);
      this.y.data[at] = symbols[i];
      this.means.data[at] = means[i];
      this.yHat.data[at] = Math.max(-INT32_MAX, Math.min(INT32_MAX, symbols[i] * this.step + means[i]));
    }
  }
}

/** Positions of equal column + step · row at a time; the context reads what its taps see there as channels. */
async function alongDiagonals(models: Models, passes: Passes, hyper: Plane, order: Extract<Order, { kind: "diagonals" }>): Promise<void> {
  const { rows, columns, channels } = passes.y;
  const { taps, step } = order;
  for (let time = 0; time < columns + step * (rows - 1); time++) {
    const places: number[] = [];
    for (let row = 0; row < rows; row++) {
      const column = time - step * row;
      if (column >= 0 && column < columns) places.push(row * columns + column);
    }
    if (!places.length) continue;
    const count = places.length;
    const seen = new Int32Array(channels * taps.length * count);
    for (let c = 0; c < channels; c++) {
      taps.forEach(([down, right], t) => {
        places.forEach((place, i) => {
          const row = Math.floor(place / columns) + down;
          const column = (place % columns) + right;
          if (row >= 0 && row < rows && column >= 0 && column < columns) {
            seen[(c * taps.length + t) * count + i] = passes.yHat.data[(c * rows + row) * columns + column];
          }
        });
      });
    }
    const [index, means] = await models.run("context", {
      neighbours: { data: seen, dims: [1, channels * taps.length, 1, count] },
      hyper: { data: gathered(hyper.data, rows * columns, places), dims: [1, hyper.dims[1], 1, count] },
    });
    passes.decode(0, index.data, means.data, places);
  }
}

/** For each group of channels the positions of an even row + column, then the others. */
async function asCheckerboards(models: Models, passes: Passes, hyper: Plane, groups: number[]): Promise<void> {
  const { rows, columns, positions } = passes.y;
  const parity = (place: number) => (Math.floor(place / columns) + (place % columns)) % 2;
  const all = Array.from({ length: rows * columns }, (_, place) => place);
  let first = 0;
  for (let k = 0; k < groups.length; k++) {
    const before = k ? (await models.run(`channels${k}`, { y_hat: passes.yHat.plane(0, first) }))[0] : null;
    for (const pass of [0, 1]) {
      const [index, means] = await models.run(groups.length > 1 ? `context${k}` : "context", {
        y_hat: passes.yHat.plane(first, groups[k]),
        hyper,
        pass: { data: Int32Array.of(pass), dims: [1] },
        ...(before ? { channels: before } : {}),
      });
      const places = all.filter((place) => parity(place) === pass);
      const [own, mean] = [index, means].map(({ data }) => gathered(data, positions, places));
      passes.decode(first, own, mean, places);
    }
    first += groups[k];
  }
}

/** Some positions of every channel. */
function gathered(data: Integers, positions: number, places: number[]): Integers {
  const channels = data.length / positions;
  const found = data instanceof Int32Array ? new Int32Array(channels * places.length) : new Uint8Array(channels * places.length);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < places.length; i++) found[c * places.length + i] = data[c * positions + places[i]];
  }
  return found;
}
