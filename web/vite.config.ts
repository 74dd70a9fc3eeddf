import { defineConfig } from "vite";

// Relative addresses, so that a proxy may serve the page under a path of its own.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/augury/server/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // the page's content policy takes files of its own and nothing inline
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  // `npm start` beside an `augury serve`; the service takes calls from its own page alone, so the host stays.
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8000", changeOrigin: false } } },
});
