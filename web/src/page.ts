import type { Facts, FromWorker, ToWorker } from "./messages";

const find = <T extends HTMLElement>(selector: string): T => document.querySelector<T>(selector)!;
const [drop, status, progress, problem, result] = ["drop", "status", "progress", "problem", "result"].map((id) => find(`#${id}`));
const canvas = find<HTMLCanvasElement>("#canvas");
const shares = find<HTMLProgressElement>("#progress progress");
const details = find<HTMLDetailsElement>("#digests");
const models = find<HTMLSelectElement>("#model");
const DOING: Record<string, string> = {
  model: "Fetching the model",
  analysis: "Analysing the image",
  coding: "Coding symbols",
  symbols: "Decoding symbols",
  pixels: "Computing pixels",
};

let worker = started();
let name = "image";
let coded: Blob | undefined;

function started(): Worker {
  const made = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  made.onmessage = ({ data }: MessageEvent<FromWorker>) => take(data);
  made.onerror = (event) => fail("Error", event.message || "the decoder cannot be started");
  return made;
}

function tell(message: ToWorker): void {
  worker.postMessage(message);
}

function take(message: FromWorker): void {
  if (message.kind === "progress") {
    status.textContent = `${DOING[message.what]} …`;
    shares.value = message.share;
  } else if (message.kind === "decoded") {
    coded = message.coded;
    show(message.facts, message.pixels);
  } else if (message.kind === "opened") {
    status.textContent = `Model ${message.model} is open: choose a .lic file of it, or an image to code with it.`;
    offerModel(message.model, `opened: ${message.model}`).selected = true;
    progress.hidden = true;
  } else if (message.kind === "digests") {
    list(details.querySelector("dl")!, Object.entries(message.digests));
  } else {
    fail(message.name, message.message);
  }
}

/** Of a sample that is on its way: what begins next, or stops, must not be overtaken by it. */
let fetching = new AbortController();

function begin(what: string): void {
  fetching.abort();
  fetching = new AbortController();
  status.textContent = what;
  shares.value = 0;
  progress.hidden = false;
  problem.hidden = result.hidden = true;
  details.open = false;
  details.querySelector("dl")!.replaceChildren();
}

function fail(kind: string, message: string): void {
  progress.hidden = true;
  status.textContent = "";
  problem.textContent = `${kind}: ${message}`;
  problem.hidden = false;
}

function show(facts: Facts, pixels: Uint8ClampedArray<ArrayBuffer>): void {
  const { width, height } = facts;
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d")!.putImageData(new ImageData(pixels, width, height), 0, 0);
  canvas.setAttribute("aria-label", `${name}, ${width} by ${height} pixels`);
  const rows: [string, string][] = [
    ["size", `${width}×${height}`],
    ["file", `${facts.bytes.toLocaleString("en")} bytes`],
    ["rate", `${((8 * facts.bytes) / (width * height)).toFixed(4)} bits per pixel`],
    ["model", facts.model],
    ["family", facts.family],
    ["symbols took", `${Math.round(facts.symbolsTook)} ms`],
    ["pixels took", `${Math.round(facts.pixelsTook)} ms`],
  ];
  if (facts.codingTook !== undefined) rows.push(["coding took", `${Math.round(facts.codingTook)} ms`]);
  if (facts.notShown.length) rows.push(["carried, not shown", facts.notShown.join(", ")]);
  list(find("#facts"), rows);
  status.textContent = coded ? `${name}: coded, and decoded again` : `${name}: decoded`;
  find("#save-coded").hidden = !coded;
  progress.hidden = true;
  result.hidden = false;
}

function list(into: Element, rows: [string, string][]): void {
  into.replaceChildren(
    ...rows.map(([term, value]) => {
      const [row, dt, dd] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      [dt.textContent, dd.textContent] = [term, value];
      row.append(dt, dd);
      return row;
    }),
  );
}

/** Decodes a file; what the browser takes for an image is coded first. */
function takeFile(file: File | undefined): void {
  if (!file) return;
  name = file.name;
  begin(`Reading ${name} …`);
  if (!file.type.startsWith("image/")) tell({ kind: "decode", file });
  else if (models.value) tell({ kind: "encode", file, model: models.value });
  else fail("ImageError", "there is no model to code it with: open a folder of ONNX models first");
}

/** A model to code with; once for each identity. */
function offerModel(identity: string, label: string): HTMLOptionElement {
  let option = [...models.options].find((one) => one.value === identity);
  if (!option) models.add((option = new Option(label, identity)));
  find("#models").hidden = false;
  return option;
}

async function offerModels(): Promise<void> {
  const answer = await fetch("models.json");
  if (!answer.ok) return;
  const known = (await answer.json()) as { identity: string; name: string }[];
  const options = known.map((one) => offerModel(one.identity, one.name.replace(/\.licq$/, "")));
  if (options.length) options[Math.floor(options.length / 2)].selected = true;
}

async function decodeSample(path: string): Promise<void> {
  begin(`Fetching ${path} …`);
  const answer = await fetch(`samples/${encodeURIComponent(path)}`, { signal: fetching.signal });
  if (!answer.ok) fail("Error", `${path}: ${(await answer.text()).trim()}`);
  else takeFile(new File([await answer.blob()], path));
}

async function offerSamples(): Promise<void> {
  const answer = await fetch("samples.json");
  if (!answer.ok) return;
  const buttons = ((await answer.json()) as string[]).map((path) => {
    const button = document.createElement("button");
    [button.type, button.textContent] = ["button", path];
    button.onclick = () =>
      decodeSample(path).catch((error) => {
        if (error.name !== "AbortError") fail("Error", String(error));
      });
    return button;
  });
  find("#samples").append(...buttons);
  find("#samples").hidden = !buttons.length;
}

function chosen(selector: string, then: (files: File[]) => void): void {
  const input = find<HTMLInputElement>(selector);
  input.onchange = () => {
    then([...(input.files ?? [])]);
    input.value = ""; // so that the same can be chosen again
  };
}

chosen("#file", ([file]) => takeFile(file));
chosen("#folder", (files) => {
  begin("Opening the model …");
  tell({ kind: "open", files });
});
for (const kind of ["dragover", "dragleave", "drop"] as const) {
  // On the whole page: a file dropped beside the frame must not replace the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFile(event.dataTransfer?.files[0]);
  });
}
details.ontoggle = () => {
  if (details.open) tell({ kind: "digests" });
};
find("#stop").onclick = () => {
  fetching.abort();
  worker.terminate();
  worker = started(); // which knows nothing of folders that were opened
  [...models.options].filter((one) => one.label.startsWith("opened: ")).forEach((one) => one.remove());
  progress.hidden = true;
  status.textContent = "Stopped.";
};
function save(blob: Blob, suffix: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/\.(lic|png|jpe?g)$/i, "") + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be reading it
}
find("#save").onclick = () => {
  canvas.toBlob((blob) => {
    if (blob) save(blob, ".png");
    else fail("Error", "the browser cannot make a PNG file of so large an image");
  });
};
find("#save-coded").onclick = () => {
  if (coded) save(coded, ".lic");
};
offerModels().catch(() => undefined);
offerSamples().catch(() => undefined); // a page without a server of its own has none
