/** Decodes and encodes beside the page, so that the page goes on answering. */
import { decode, digests, type Decoded, type Progress } from "./decode";
import { encode } from "./encode";
import { ArtifactError, BitstreamError, LicquantError } from "./errors";
import type { Facts, FromWorker, ToWorker } from "./messages";
import { Models, readAbout, type Source } from "./models";

const opened = new Map<string, Models>();
let last: Decoded | null = null;

function say(message: FromWorker, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** The identities of the models beside this page. */
async function identities(): Promise<string[]> {
  const answer = await fetch("../models.json");
  return answer.ok ? ((await answer.json()) as { identity: string }[]).map((one) => one.identity) : [];
}

const beside =
  (identity: string): Source =>
  async (name) => {
    const answer = await fetch(`../models/${identity}/${name}`);
    if (!answer.ok) throw new ArtifactError(`the model cannot be had: ${(await answer.text()).trim() || answer.status}`);
    return answer.arrayBuffer();
  };

async function modelsOf(identity: string): Promise<Models> {
  const found = opened.get(identity);
  if (found) return found;
  const known = await identities();
  if (!known.includes(identity)) {
    const here = [...new Set([...opened.keys(), ...known])].join(", ") || "none";
    throw new BitstreamError(`coded with another model: it names artifact ${identity}; here: ${here}`);
  }
  const models = await Models.open(beside(identity));
  opened.set(identity, models);
  return models;
}

async function open(files: File[]): Promise<void> {
  const source: Source = async (name) => {
    const file = files.find((one) => one.name === name);
    if (!file) throw new ArtifactError(`${name} is missing: choose a folder that licquant export --onnx has written`);
    return file.arrayBuffer();
  };
  const identity = (await readAbout(source)).model;
  opened.set(identity, await Models.open(source));
  say({ kind: "opened", model: identity });
}

async function answer(message: ToWorker): Promise<void> {
  if (message.kind === "open") return open(message.files);
  if (message.kind === "digests") {
    if (last) say({ kind: "digests", digests: await digests(last) });
    return;
  }
  const progress: Progress = (what, share) => say({ kind: "progress", what, share });
  let coded: { file: Blob; took: number } | null = null;
  if (message.kind === "encode") {
    progress("model", 0);
    const models = await modelsOf(message.model);
    const start = performance.now();
    const file = new Blob([await encode(message.file, models, progress)]);
    coded = { file, took: performance.now() - start };
  }
  last = await decode(coded?.file ?? message.file, modelsOf, progress);
  const { model, family, width, height, bytes, notShown, symbolsTook, pixelsTook } = last;
  const facts: Facts = { model, family, width, height, bytes, notShown, symbolsTook, pixelsTook, codingTook: coded?.took };
  say({ kind: "decoded", facts, pixels: last.pixels, coded: coded?.file });
}

let before: Promise<void> = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  before = before // one after another
    .then(() => answer(data))
    .catch((error: unknown) => {
      const known = error instanceof LicquantError;
      const message = error instanceof Error ? error.message : String(error);
      say({ kind: "failed", name: known ? error.name : "Error", message });
    });
};
