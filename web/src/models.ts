import * as ort from "onnxruntime-web/wasm";
import glue from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import binary from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { crc32 } from "./checksums";
import { ArtifactError, EngineError } from "./errors";
import { CodingTables, type TablesRecord } from "./tables";

// Threads need memory that several of them share, which browsers give to pages that are isolated from others.
const MAX_THREADS = 8;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
ort.env.wasm.wasmPaths = { mjs: new URL(glue, import.meta.url).href, wasm: new URL(binary, import.meta.url).href };
ort.env.logLevel = "error";

/** Channels of y, first and end, and where their context looks: down, right. */
export interface Group {
  channels: [number, number];
  taps: [number, number][];
}

/** A position is coded at the time (column + step · row) mod period. */
export interface Order {
  step: number;
  period: number;
  groups: Group[];
}

/** tables.json of an exported folder, as docs/onnx.md describes it. */
export interface About {
  format: number;
  family: string;
  model: string;
  stride: number;
  analysis: { margin: number };
  synthesis: { channels: number; stride: number; margin: number };
  order?: Order;
  fraction_bits?: { y: number; y_hat: number };
  check?: { z_symbols: number[][][][]; crc32: number };
  tables: { y: TablesRecord; z?: TablesRecord };
}

/** What a folder holds under a name; rejects with an ArtifactError where it is missing. */
export type Source = (name: string) => Promise<ArrayBuffer>;

/** uint8 or int32. */
export type Integers = Int32Array | Uint8Array;

export interface Plane {
  data: Integers;
  dims: readonly number[];
}

/** The models of one exported folder. */
export class Models {
  readonly tables: { y: CodingTables; z?: CodingTables };
  private readonly sessions = new Map<string, ort.InferenceSession>();

  private constructor(
    readonly about: About,
    private readonly source: Source,
  ) {
    const { y, z } = about.tables;
    this.tables = { y: new CodingTables(y), z: z && new CodingTables(z) };
  }

  /** Opens a folder, and looks whether this runtime computes its hyper.onnx rightly. */
  static async open(source: Source): Promise<Models> {
    const models = new Models(await readAbout(source), source);
    const { check } = models.about;
    if (check) {
      const [z] = check.z_symbols;
      const symbols = { data: Int32Array.from(z.flat(2)), dims: [1, z.length, z[0].length, z[0][0].length] };
      let found = 0;
      for (const { data } of await models.run("hyper", { z_symbols: symbols })) {
        const wide = Int32Array.from(data);
        found = crc32(new Uint8Array(wide.buffer), found);
      }
      if (found !== check.crc32) throw new EngineError("this browser's runtime computes hyper.onnx wrongly: symbols would be wrong");
    }
    return models;
  }

  /** The outputs of a model, in its order. */
  async run(name: string, inputs: Record<string, Plane>): Promise<Plane[]> {
    const session = await this.session(name);
    const feeds: Record<string, ort.Tensor> = {};
    for (const [input, { data, dims }] of Object.entries(inputs)) {
      feeds[input] = data instanceof Int32Array ? new ort.Tensor("int32", data, dims) : new ort.Tensor("uint8", data, dims);
    }
    try {
      const found = await session.run(feeds);
      return session.outputNames.map((output) => ({ data: found[output].data as Integers, dims: found[output].dims }));
    } catch (error) {
      throw new EngineError(`${name}.onnx cannot be run here: ${firstLine(error)}`);
    }
  }

  private async session(name: string): Promise<ort.InferenceSession> {
    let session = this.sessions.get(name);
    if (!session) {
      const content = new Uint8Array(await this.source(`${name}.onnx`));
      try {
        session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
      } catch (error) {
        throw new ArtifactError(`${name}.onnx cannot be read: ${firstLine(error)}`);
      }
      this.sessions.set(name, session);
    }
    return session;
  }
}

/** tables.json, as far as it is known to be one. */
export async function readAbout(source: Source): Promise<About> {
  const text = new TextDecoder().decode(await source("tables.json"));
  let about: About;
  try {
    about = JSON.parse(text) as About;
  } catch {
    throw new ArtifactError("tables.json is not JSON");
  }
  if (about?.format !== 3 || !about.analysis || !about.synthesis || !about.tables?.y?.starts || typeof about.model !== "string") {
    throw new ArtifactError("tables.json is not of a folder that this licquant exports: export the model anew");
  }
  return about;
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split("\n")[0].slice(0, 300);
}
