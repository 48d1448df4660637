import { PRECISION, type Model } from "./ans";

const WORD = 32n;
const LOW = 2n ** WORD - 1n;

/** The stack of ans.ts as an encoder fills it: what is pushed last is popped first. */
export class Writer {
  private readonly words: number[] = [];
  private state = 1n << BigInt(PRECISION);

  /** A slot of a model. */
  push(model: Model, slot: number): void {
    this.put(model.starts[slot], model.starts[slot + 1] - model.starts[slot]);
  }

  /** Values of as many bits, 0 to 48, so that they are popped in order. */
  raw(values: number[], bits: number): void {
    for (let low = 0; low < bits; low += 16) {
      const width = Math.min(16, bits - low);
      const step = 2 ** (PRECISION - width);
      for (const value of [...values].reverse()) this.put((Math.floor(value / 2 ** low) % 2 ** width) * step, step);
    }
  }

  /** The words and the state without zero bytes at the end. */
  bytes(): Uint8Array {
    if (!this.words.length && this.state === 1n << BigInt(PRECISION)) return new Uint8Array();
    const all = [...this.words, Number(this.state & LOW), Number(this.state >> WORD)];
    const found = new Uint8Array(4 * all.length);
    const view = new DataView(found.buffer);
    all.forEach((word, i) => view.setUint32(4 * i, word, true));
    let length = found.length;
    while (!found[length - 1]) length--;
    return found.subarray(0, length);
  }

  /** state = (state / width) · 2^24 + start + state mod width, once a word has made room. */
  private put(start: number, width: number): void {
    const wide = BigInt(width);
    if (this.state >> BigInt(64 - PRECISION) >= wide) {
      this.words.push(Number(this.state & LOW));
      this.state >>= WORD;
    }
    this.state = ((this.state / wide) << BigInt(PRECISION)) + BigInt(start) + (this.state % wide);
  }
}
