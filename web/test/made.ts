/** Things as the service sends them. */
import type { View } from "../src/kept";
import type { Answer, Scan, Score, Tokens } from "../src/types";

export function tokensOf(tokens: string[]): Tokens {
  return { token_ids: tokens.map((_, i) => i), tokens, special: tokens.map(() => false), spans: [] };
}

const source = {
  oracle: "o",
  layers: [18],
  positions: [3, 4],
  read_text: "to bake",
  coefficient: 2,
  trained_coefficient: 2,
  target: { model: null, adapters: [], dtype: "float32", captured: "2026-01-01", kind: "activations", versions: {} },
  warnings: [],
  notes: [],
  versions: {},
};

export function answer(parts: Partial<Answer> = {}): Answer {
  return {
    ...source,
    kind: "answer",
    question: "What is this about?",
    text: "cooking",
    token_ids: [1],
    samples: [],
    groups: [],
    agreement: null,
    same_as_real: null,
    controls: {},
    settings: { samples: 0, temperature: 0, max_new_tokens: 24, seed: 0 },
    ...parts,
  };
}

export function score(parts: Partial<Score> = {}): Score {
  return {
    ...source,
    kind: "score",
    question: "Is this about cooking?",
    choices: ["Yes", "No"],
    choice: "Yes",
    log_probs: { Yes: -0.1, No: -2.4 },
    margin: 2.3,
    probability: 0.9,
    mass: 0.99,
    percentile: 100,
    donor_median: -1,
    donor_margins: Array.from({ length: 32 }, () => -1),
    value: 3.3,
    method: "first-token",
    spellings: [],
    controls: {},
    ...parts,
  } as Score;
}

export function scan(parts: Partial<Scan> = {}): Scan {
  return {
    ...source,
    kind: "scan",
    question: "Is this about cooking?",
    choices: ["Yes", "No"],
    tokens: [" to", " bake"],
    margins: [0.5, 1.5],
    masses: [1, 1],
    values: [-0.5, 2],
    donor_median: -1,
    window: 1,
    ...parts,
  };
}

export const view: View = {
  tokenizer: "t",
  draft: { kind: "chat", turns: [{ role: "user", content: "Bake 🍞 | bread." }], text: "", ending: "generation" },
  exact: null,
  oracle: "o",
  reads: { target: "base", difference: false },
  layers: [18],
  selected: [3, 4],
  question: "What is this about?",
  yesNo: false,
  samples: 5,
  temperature: 1,
  controls: true,
  scans: ["Is this about cooking?"],
  window: 1,
  everywhere: true,
  columns: [{ oracle: "o", reads: { target: "base", difference: false } }],
};
