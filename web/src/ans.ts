import { BitstreamError } from "./errors";

const WORD = 2 ** 32;
const HALF = 2 ** 16;
export const PRECISION = 24;

/** How [0, 2^24) is divided among slots: slot i holds [starts[i], starts[i + 1]). */
export class Model {
  readonly starts: Uint32Array;
  // The slot of each 2^16th quantile: where to begin to look.
  private readonly near = new Uint32Array(256);

  /** starts: where each slot begins, and 2^24. */
  constructor(starts: ArrayLike<number>) {
    this.starts = Uint32Array.from(starts);
    for (let i = 0, slot = 0; i < 256; i++) {
      while (this.starts[slot + 1] <= i << 16) slot++;
      this.near[i] = slot;
    }
  }

  slot(quantile: number): number {
    let slot = this.near[quantile >>> 16];
    while (this.starts[slot + 1] <= quantile) slot++;
    return slot;
  }
}

/**
 * A string of symbols: an ANS stack of 32-bit words with a state of 64 bits, kept as two halves.
 * Products of 40 by 24 bits are put together from two that float64 holds exactly.
 */
export class Stack {
  private readonly words: Uint32Array;
  private left: number;
  private high = 0;
  private low = 0;

  constructor(bytes: Uint8Array) {
    if (bytes.length && bytes[bytes.length - 1] === 0) {
      throw new BitstreamError("corrupted payload: its last byte is 0");
    }
    const padded = new Uint8Array(4 * Math.ceil(bytes.length / 4));
    padded.set(bytes);
    const view = new DataView(padded.buffer);
    this.words = Uint32Array.from({ length: padded.length / 4 }, (_, i) => view.getUint32(4 * i, true));
    if (!bytes.length) this.words = Uint32Array.of(2 ** PRECISION);
    this.left = this.words.length;
    while (this.left && !this.high) this.refill();
  }

  /** So many slots of a model, one after another. */
  slots(model: Model, count: number): Uint32Array {
    const found = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const slot = (found[i] = model.slot(this.low & 0xffffff));
      this.take(model.starts[slot], model.starts[slot + 1] - model.starts[slot]);
    }
    return found;
  }

  /** So many values of as many bits, 0 to 48. */
  raw(count: number, bits: number): Float64Array {
    const values = new Float64Array(count);
    for (let low = 16 * Math.floor((bits - 1) / 16); low >= 0; low -= 16) {
      const shift = PRECISION - Math.min(16, bits - low);
      for (let i = 0; i < count; i++) {
        const slot = (this.low & 0xffffff) >>> shift;
        this.take(slot * 2 ** shift, 2 ** shift);
        values[i] += slot * 2 ** low;
      }
    }
    return values;
  }

  /** Throws unless everything has been popped. */
  finish(): void {
    if (this.left || this.high || this.low !== 2 ** PRECISION) {
      throw new BitstreamError("corrupted payload: it does not end where its last symbol does");
    }
  }

  /** state = (state >> 24) · width + quantile − start, for the interval that holds the quantile. */
  private take(start: number, width: number): void {
    const rest = this.high * 256 + (this.low >>> PRECISION);
    const upper = Math.floor(rest / HALF);
    const product = upper * width;
    const sum = (product % HALF) * HALF + (rest % HALF) * width + (this.low & 0xffffff) - start;
    this.high = Math.floor(product / HALF) + Math.floor(sum / WORD);
    this.low = sum % WORD;
    if (!this.high && this.left) this.refill();
  }

  private refill(): void {
    this.high = this.low;
    this.low = this.words[--this.left];
  }
}
