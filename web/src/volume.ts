import type { Plane } from "./models";

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
