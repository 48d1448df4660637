/** The symbols of y pass by pass, for whoever has them: a decoder from its string, an encoder from its latent. */
import type { Group, Integers, Models, Order, Plane } from "./models";
import { Volume } from "./volume";

const INT32_MAX = 2 ** 31 - 1;
const PIECE = 2048; // positions that a context computes at a time: bounds the memory

/** Symbols that are coded together: of some channels from the first on, at some places of the plane. */
export interface Pass {
  first: number;
  places: ArrayLike<number>;
  /** [channels, places] */
  index: Integers;
  means: Integers;
}

/** y, its means and ŷ, whole or on their way. */
export interface Coded {
  y: Volume;
  means: Volume;
  yHat: Volume;
}

/** symbols: gives those of each pass, in the order of its index. */
export async function throughPasses(models: Models, z: Volume, symbols: (pass: Pass) => Int32Array): Promise<Coded> {
  const { order, fraction_bits, synthesis } = models.about;
  const [hyper, allMeans] = await models.run("hyper", { z_symbols: z.plane() });
  const [rows, columns] = hyper.dims.slice(2);
  const volume = () => new Volume(synthesis.channels, rows, columns);
  const coded: Coded = { y: volume(), means: volume(), yHat: volume() };
  const put = (pass: Pass) => putPass(coded, pass, symbols(pass), 2 ** (fraction_bits?.y_hat ?? 0));
  if (!order) {
    const places = Array.from({ length: rows * columns }, (_, place) => place);
    put({ first: 0, places, index: hyper.data, means: allMeans.data });
    return coded;
  }
  const times = timesOf(order, rows, columns);
  for (const [k, group] of order.groups.entries()) {
    const [first] = group.channels;
    const known = k ? (await models.run(`channels${k}`, { y_hat: coded.yHat.plane(0, first), hyper }))[0] : hyper;
    for (const [time, places] of times) put(await parameters(models, k, group, coded.yHat, known, time, places));
  }
  return coded;
}

/** Where the i-th symbol of a pass lies in a volume of all channels. */
export function placeOf({ positions }: Volume, { first, places }: Pass, i: number): number {
  return (first + Math.floor(i / places.length)) * positions + places[i % places.length];
}

function putPass({ y, means, yHat }: Coded, pass: Pass, symbols: Int32Array, step: number): void {
  for (let i = 0; i < symbols.length; i++) {
    const at = placeOf(y, pass, i);
    y.data[at] = symbols[i];
    means.data[at] = pass.means[i];
    yHat.data[at] = Math.max(-INT32_MAX, Math.min(INT32_MAX, symbols[i] * step + pass.means[i]));
  }
}

/** The places of each time, both ascending. */
function timesOf({ step, period }: Order, rows: number, columns: number): [number, number[]][] {
  const found = new Map<number, number[]>();
  for (let place = 0; place < rows * columns; place++) {
    const time = ((place % columns) + step * Math.floor(place / columns)) % period;
    const places = found.get(time);
    if (places) places.push(place);
    else found.set(time, [place]);
  }
  return [...found].sort(([a], [b]) => a - b);
}

/** Tables and means at some places, piece by piece. */
async function parameters(
  models: Models,
  k: number,
  group: Group,
  yHat: Volume,
  known: Plane,
  time: number,
  places: number[],
): Promise<Pass> {
  const [first, end] = group.channels;
  const [index, means] = [0, 1].map(() => new Int32Array((end - first) * places.length));
  for (let from = 0; from < places.length; from += PIECE) {
    const piece = places.slice(from, from + PIECE);
    const found = await models.run(`context${k}`, {
      neighbours: neighbours(yHat, group, piece),
      known: gathered(known, piece),
      time: { data: Int32Array.of(time), dims: [1] },
    });
    for (let c = 0; c < end - first; c++) {
      [index, means].forEach((all, i) => {
        all.set(found[i].data.subarray(c * piece.length, (c + 1) * piece.length), c * places.length + from);
      });
    }
  }
  return { first, places, index, means };
}

/** What every tap sees at some places, channel by channel; 0 outside of the plane. */
function neighbours(yHat: Volume, { channels: [first, end], taps }: Group, places: number[]): Plane {
  const { rows, columns, positions } = yHat;
  const count = places.length;
  const data = new Int32Array((end - first) * taps.length * count);
  taps.forEach(([down, right], t) => {
    places.forEach((place, i) => {
      const row = Math.floor(place / columns) + down;
      const column = (place % columns) + right;
      if (row < 0 || row >= rows || column < 0 || column >= columns) return;
      for (let c = first; c < end; c++) {
        data[((c - first) * taps.length + t) * count + i] = yHat.data[c * positions + row * columns + column];
      }
    });
  });
  return { data, dims: [1, (end - first) * taps.length, 1, count] };
}

/** Some places of every channel. */
function gathered({ data, dims }: Plane, places: number[]): Plane {
  const positions = data.length / dims[1];
  const length = dims[1] * places.length;
  const found = data instanceof Int32Array ? new Int32Array(length) : new Uint8Array(length);
  for (let c = 0; c < dims[1]; c++) {
    for (let i = 0; i < places.length; i++) found[c * places.length + i] = data[c * positions + places[i]];
  }
  return { data: found, dims: [1, dims[1], 1, places.length] };
}
