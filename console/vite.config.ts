// The same sources give the same bytes: names come from contents, and nothing reads the clock.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

/** Where the API is while `npm run dev` runs. */
const server = process.env["PROFILESTORE_URL"] ?? "http://127.0.0.1:7400";

export default defineConfig({
  plugins: [svelte()],
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: { "/v1": server, "/healthz": server, "/metrics": server, "/readyz": server },
  },
});
