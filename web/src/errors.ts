/** What the codec raises on purpose, by the names that licquant's errors have in Python. Messages are one clear line. */
export class LicquantError extends Error {
  override name = "LicquantError";
}

/** A coded image is truncated, damaged, hostile, or was made with another model. */
export class BitstreamError extends LicquantError {
  override name = "BitstreamError";
}

/** An image cannot be read, or not coded here. */
export class ImageError extends LicquantError {
  override name = "ImageError";
}

/** The files of an exported model are missing, damaged, or do not fit one another. */
export class ArtifactError extends LicquantError {
  override name = "ArtifactError";
}

/** The runtime of this browser computes wrongly, or not at all. */
export class EngineError extends LicquantError {
  override name = "EngineError";
}
