import type { Rng } from "@vibeserve/shared";
import { pick, word } from "./words.ts";

const PATTERNS: readonly ((r: Rng) => string)[] = [
  (r) =>
    `${word(r, "person")}, a ${word(r, "role")} from ${word(r, "place")}, ${word(r, "verb")} the ${word(r, "adjective")} ${word(r, "thing")} ${word(r, "adverb")}.`,
  (r) => `The ${word(r, "thing")} was made of ${word(r, "material")} and cost ${10 + r.int(9000)} coins in ${1700 + r.int(325)}.`,
  (r) =>
    `In ${word(r, "place")}, every ${word(r, "role")} knows that a ${word(r, "adjective")} ${word(r, "thing")} needs more than ${word(r, "material")}.`,
  (r) =>
    `When the ${word(r, "thing")} broke, ${word(r, "person")} ${word(r, "verb")} it ${word(r, "adverb")}, and nobody in ${word(r, "place")} noticed.`,
  (r) => `There were ${2 + r.int(98)} ${word(r, "item")} on the table, but only ${1 + r.int(9)} of them belonged to ${word(r, "person")}.`,
  (r) =>
    `"I have never seen such a ${word(r, "adjective")} ${word(r, "thing")}," said the ${word(r, "role")}, who had ${word(r, "verb")} it ${word(r, "adverb")}.`,
  (r) =>
    `Its main advantage over the ${word(r, "adjective")} ${word(r, "thing")} is that the ${word(r, "material")} part can be ${word(r, "verb")} by one person.`,
  (r) =>
    `According to ${word(r, "person")}, ${word(r, "topic")} explains why the ${word(r, "thing")} near ${word(r, "place")} looks ${word(r, "adjective")}.`,
  (r) =>
    `First the ${word(r, "role")} ${word(r, "verb")} the ${word(r, "thing")}; then, ${word(r, "adverb")}, the ${word(r, "material")} ${word(r, "thing")} was ${word(r, "verb")}.`,
  (r) =>
    `The train to ${word(r, "place")} leaves at ${1 + r.int(12)}:${String(r.int(60)).padStart(2, "0")} and arrives ${1 + r.int(9)} hours later, if the weather is not ${word(r, "adjective")}.`,
];

/** One sentence in plain English. */
export function sentence(rng: Rng): string {
  return pick(rng, PATTERNS)(rng);
}

const ASIDES: readonly ((r: Rng) => string)[] = [
  (r) => `I am a ${word(r, "role")} in ${word(r, "place")} and have ${5 + r.int(50)} minutes.`,
  (r) => `Please keep in mind that the answer is meant for ${word(r, "audience")}.`,
  (r) => `My friend ${word(r, "person")} thinks that ${word(r, "topic")} and ${word(r, "topic")} are the same thing, which I doubt.`,
  (r) => `Use an example with a ${word(r, "adjective")} ${word(r, "thing")}.`,
  (r) => `Yesterday I read that a ${word(r, "thing")} made of ${word(r, "material")} can last ${2 + r.int(300)} years.`,
  (r) => `Avoid jargon, and do not mention ${word(r, "topic")}.`,
  (r) => `We bought ${2 + r.int(40)} ${word(r, "item")} for it, at ${1 + r.int(20)}.${10 + r.int(90)} each.`,
];

/** A remark that a person might add to a question. */
export function aside(rng: Rng): string {
  return pick(rng, ASIDES)(rng);
}

const QUESTIONS: readonly ((r: Rng) => string)[] = [
  (r) => `Can you explain ${word(r, "topic")} to ${word(r, "audience")}?`,
  (r) => `What is the difference between ${word(r, "topic")} and ${word(r, "topic")}?`,
  (r) => `Why does ${word(r, "topic")} matter for a ${word(r, "role")} in ${word(r, "place")}?`,
  (r) => `How would you describe a ${word(r, "adjective")} ${word(r, "thing")} to ${word(r, "audience")}?`,
  (r) => `What should ${word(r, "person")} know about ${word(r, "topic")} before a trip to ${word(r, "place")}?`,
  (r) => `Write a short story about a ${word(r, "role")} named ${word(r, "person")} and a ${word(r, "adjective")} ${word(r, "thing")}.`,
  (r) => `Give me ${3 + r.int(5)} tips on ${word(r, "topic")} for ${word(r, "audience")}.`,
  (r) => `If ${2 + r.int(30)} ${word(r, "item")} cost ${5 + r.int(95)} dollars, how much do ${3 + r.int(50)} ${word(r, "item")} cost?`,
  (r) => `Write a polite e-mail to a ${word(r, "role")} in ${word(r, "place")} about a broken ${word(r, "thing")}.`,
];

/** A question or a task, as a user of a chat puts it. */
export function question(rng: Rng): string {
  return pick(rng, QUESTIONS)(rng);
}

const REPLIES: readonly ((r: Rng) => string)[] = [
  (r) =>
    `Of course. The short answer is that ${word(r, "topic")} depends on the ${word(r, "thing")}, and a ${word(r, "role")} would start with the ${word(r, "adjective")} part.`,
  (r) =>
    `Here are three points:\n1. Look at the ${word(r, "adjective")} ${word(r, "thing")} first.\n2. Ask a ${word(r, "role")} for help.\n3. Write down what you learnt about ${word(r, "topic")}.`,
  (r) =>
    `That is a good question. In ${word(r, "place")} people use ${word(r, "material")} for it, because it is ${word(r, "adjective")} and easy to find.`,
  (r) =>
    `I would suggest ${word(r, "topic")} as an example: it is ${word(r, "adjective")} enough for ${word(r, "audience")}. ${sentence(r)}`,
];

/** What an assistant might have answered. */
export function reply(rng: Rng): string {
  return pick(rng, REPLIES)(rng);
}
