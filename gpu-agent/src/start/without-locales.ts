import { registerHooks } from "node:module";

/**
 * zod brings its messages in 60 languages: 8 MB of an idle agent, and the product speaks one. From here on their index is empty; returns how to end that. Should zod
 * name it otherwise one day, they are loaded again and nothing else changes.
 */
export function withoutLocales(): () => void {
  const hooks = registerHooks({
    resolve: (specifier, context, next) =>
      specifier.endsWith("/locales/index.js") && context.parentURL?.includes("/node_modules/zod/")
        ? { url: "data:text/javascript,export {}", shortCircuit: true }
        : next(specifier, context),
  });
  return () => hooks.deregister();
}
