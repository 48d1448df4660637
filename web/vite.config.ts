import { defaultClientConditions, defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page can lie in any folder of a server
  resolve: {
    // ONNX Runtime's own two files are passed on as they are: its threads start from them.
    conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions],
  },
  worker: { format: "es" },
  build: {
    outDir: "../src/licquant/page",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy has no data: addresses
    target: "es2022",
  },
});
