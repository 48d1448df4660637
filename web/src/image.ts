import { ImageError } from "./errors";

// As many as licquant codes in one piece: a larger picture is divided into regions.
const MAX_PIXELS = 2 ** 24;

/** The pixels of an image file as the browser shows them: upright, in sRGB; red, green, blue, alpha of each. */
export async function readImage(file: Blob, stride: number): Promise<ImageData> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new ImageError("the browser cannot read it as an image");
  }
  const { width, height } = bitmap;
  const coded = Math.ceil(height / stride) * Math.ceil(width / stride) * stride ** 2;
  if (coded > MAX_PIXELS) {
    throw new ImageError(`the image has ${width}×${height} pixels: this page codes up to ${MAX_PIXELS}, licquant encode more`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  if (image.data.some((value, i) => i % 4 === 3 && value !== 255)) {
    throw new ImageError("the image is transparent somewhere, which this page does not code: licquant encode does");
  }
  return image;
}
