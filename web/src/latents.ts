import { Stack } from "./ans";
import { BitstreamError } from "./errors";
import type { Models } from "./models";
import { throughPasses } from "./passes";
import { Volume } from "./volume";

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
  const coded = new Volume(first.count, rows, columns, first.decode(stacks[0], first.ofChannels(rows * columns)));
  stacks[0].finish();
  if (!zTables) return { z: null, y: coded, means: null, yHat: null };
  const found = await throughPasses(models, coded, ({ index }) => yTables.decode(stacks[1], index));
  stacks[1].finish();
  return { z: coded, ...found };
}
