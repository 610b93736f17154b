import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

const noMocks = {
  selector: "CallExpression[callee.object.name='vi'][callee.property.name=/^(mock|doMock|hoisted)$/]",
  message: "No module mocks: put a real process or a fake at the protocol.",
};
const namedExports = [
  { selector: "ExportDefaultDeclaration", message: "Named exports only." },
  { selector: "ExportAllDeclaration", message: "List what is exported: no `export *`." },
];
const envOnlyInConfig = {
  "no-restricted-properties": ["error", { object: "process", property: "env", message: "Only config.ts reads the environment." }],
};

/** Imports that would turn the dependency arrows round (coordinator → shared ← gpu-agent), or reach into a package. */
function forbidImports(...patterns) {
  return {
    "no-restricted-imports": [
      "error",
      {
        paths: [{ name: "node:process", importNames: ["env"], message: "Only config.ts reads the environment." }],
        patterns: [{ group: ["@vibeserve/*/*"], message: "Import a package by its name, not a file inside it." }, ...patterns],
      },
    ],
  };
}

export default defineConfig(
  { ignores: ["**/node_modules/", "**/.vibeserve*/", "coverage/", "stacks/**/build/"] },
  { linterOptions: { noInlineConfig: true, reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "max-lines": ["error", 400],
      "no-restricted-syntax": ["error", noMocks, ...namedExports],
      ...envOnlyInConfig,
      ...forbidImports(),
      eqeqeq: "error",
      "no-console": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      // "import { type X }" loads the module all the same.
      "@typescript-eslint/no-import-type-side-effects": "error",
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      // noUncheckedIndexedAccess makes every counted loop over an array need the assertion.
      "@typescript-eslint/no-non-null-assertion": "off",
      // An async function that only returns satisfies an async interface; that is no mistake.
      "@typescript-eslint/require-await": "off",
      // noPropertyAccessFromIndexSignature is off, and both spellings are read well.
      "@typescript-eslint/dot-notation": "off",
    },
  },
  {
    files: ["shared/**/*.ts"],
    rules: forbidImports(
      { group: ["@vibeserve/coordinator", "@vibeserve/gpu-agent"], message: "shared depends on no other package." },
      {
        regex: "^node:(fs|net|http|https|child_process|dgram|tls|worker_threads|cluster)(/|$)",
        message: "shared does no I/O.",
      },
    ),
  },
  {
    files: ["coordinator/**/*.ts"],
    rules: forbidImports({ group: ["@vibeserve/gpu-agent", "**/gpu-agent/**"], message: "coordinator and gpu-agent meet only on NATS." }),
  },
  {
    files: ["gpu-agent/**/*.ts"],
    rules: forbidImports({
      group: ["@vibeserve/coordinator", "**/coordinator/**"],
      message: "coordinator and gpu-agent meet only on NATS.",
    }),
  },
  {
    files: ["**/config.ts", "test/**/*.ts", "*.config.ts"],
    rules: { "no-restricted-properties": "off" },
  },
  { files: ["*.config.ts", "eslint.config.js"], rules: { "no-restricted-syntax": ["error", noMocks] } },
  {
    files: ["**/*.{js,mjs}"],
    extends: [tseslint.configs.recommended],
    rules: { "max-lines": ["error", 400], "prefer-const": "error", eqeqeq: "error" },
  },
);
