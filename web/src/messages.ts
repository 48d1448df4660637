/** What the page and its worker say to each other. */

export type ToWorker =
  | { kind: "decode"; file: Blob }
  | { kind: "encode"; file: Blob; model: string }
  | { kind: "open"; files: File[] }
  | { kind: "digests" };

export interface Facts {
  model: string;
  family: string;
  width: number;
  height: number;
  bytes: number;
  notShown: string[];
  symbolsTook: number;
  pixelsTook: number;
  codingTook?: number;
}

export type FromWorker =
  | { kind: "progress"; what: string; share: number }
  | { kind: "decoded"; facts: Facts; pixels: Uint8ClampedArray<ArrayBuffer>; coded?: Blob }
  | { kind: "opened"; model: string }
  | { kind: "digests"; digests: Record<string, string> }
  | { kind: "failed"; name: string; message: string };
