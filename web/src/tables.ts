import { Model, type Stack } from "./ans";
import { ArtifactError, BitstreamError } from "./errors";
import type { Writer } from "./writer";

/** What tables.json has of a latent: each table's first symbol, where its slots start, and those of the classes of escapes. */
export interface TablesRecord {
  offsets: number[];
  starts: number[][];
  escapes: number[];
}

/** The coding tables of a latent. */
export class CodingTables {
  private readonly models: Model[];
  private readonly first: Int32Array;
  private readonly length: Int32Array;
  // Of an escaped symbol's distance: class c holds 2^c and more, below 2^(c + 1).
  private readonly classes: Model;

  constructor(record: TablesRecord) {
    this.models = record.starts.map((one) => new Model(one));
    this.classes = new Model(record.escapes);
    this.first = Int32Array.from(record.offsets);
    this.length = Int32Array.from(record.starts, (one) => one.length - 2);
  }

  get count(): number {
    return this.models.length;
  }

  /** The table of each symbol where every channel has its own, for so many positions. */
  ofChannels(positions: number): Int32Array {
    return Int32Array.from({ length: this.count * positions }, (_, i) => Math.floor(i / positions));
  }

  /** The symbols of one group; index: the table of each. */
  decode(stack: Stack, index: ArrayLike<number>): Int32Array {
    const { order, counts } = this.byTable(index);
    const symbols = new Int32Array(index.length);
    const escaped: number[] = [];
    let at = 0;
    for (let table = 0; table < counts.length; table++) {
      const length = this.length[table];
      for (const slot of stack.slots(this.models[table], counts[table])) {
        if (slot === length) escaped.push(order[at]);
        symbols[order[at++]] = this.first[table] + slot;
      }
    }
    if (escaped.length) this.decodeEscaped(stack, index, escaped, symbols);
    return symbols;
  }

  /** Pushes one group, everything in the reverse of the order in which it is decoded. */
  encode(writer: Writer, index: ArrayLike<number>, symbols: Int32Array): void {
    const { order } = this.byTable(index);
    const inside = (place: number): boolean => {
      const slot = symbols[place] - this.first[index[place]];
      return slot >= 0 && slot < this.length[index[place]];
    };
    this.encodeEscaped(writer, index, Array.from(order).filter((place) => !inside(place)), symbols);
    for (const place of order.reverse()) {
      const table = index[place];
      writer.push(this.models[table], inside(place) ? symbols[place] - this.first[table] : this.length[table]);
    }
  }

  /** The stable order of a group by table, and how many symbols each table has. */
  private byTable(index: ArrayLike<number>): { order: Uint32Array; counts: Uint32Array } {
    const counts = new Uint32Array(this.count);
    for (let i = 0; i < index.length; i++) {
      if (!(index[i] >= 0 && index[i] < this.count)) throw new ArtifactError("its hyper synthesis names a table that is not there");
      counts[index[i]]++;
    }
    const next = new Uint32Array(this.count);
    for (let table = 1; table < this.count; table++) next[table] = next[table - 1] + counts[table - 1];
    const order = new Uint32Array(index.length);
    for (let i = 0; i < index.length; i++) order[next[index[i]]++] = i;
    return { order, counts };
  }

  /** The raw bits of each class, the highest first, and then the classes. */
  private encodeEscaped(writer: Writer, index: ArrayLike<number>, escaped: number[], symbols: Int32Array): void {
    const parts = escaped.map((place) => {
      const position = symbols[place] - this.first[index[place]];
      const distance = position < 0 ? -position : position - this.length[index[place]] + 1;
      const c = distance === 2 ** 32 ? 32 : 31 - Math.clz32(distance);
      return { c, raw: 2 * (distance - 2 ** c) + (position < 0 ? 1 : 0) };
    });
    for (let c = 32; c >= 0; c--) {
      writer.raw(parts.filter((part) => part.c === c).map(({ raw }) => raw), c + 1);
    }
    for (const { c } of parts.reverse()) writer.push(this.classes, c);
  }

  private decodeEscaped(stack: Stack, index: ArrayLike<number>, escaped: number[], symbols: Int32Array): void {
    const classes = stack.slots(this.classes, escaped.length);
    for (let c = 0; c <= 32; c++) {
      const places = escaped.filter((_, i) => classes[i] === c);
      const raw = stack.raw(places.length, c + 1);
      places.forEach((place, i) => {
        const table = index[place];
        const distance = Math.floor(raw[i] / 2) + 2 ** c;
        const below = raw[i] % 2 === 1;
        const symbol = below ? this.first[table] - distance : this.first[table] + this.length[table] - 1 + distance;
        if (symbol !== (symbol | 0)) throw new BitstreamError("corrupted payload: a symbol that no encoder writes");
        symbols[place] = symbol;
      });
    }
  }
}
