import type { Rng } from "@vibeserve/shared";

const bank = (text: string): readonly string[] => text.trim().split(/\s*[,\n]\s*/);

/** Word banks. Their products, not their sizes, make the variety: one sentence has over 10^9 forms. */
export const WORDS = {
  person: bank(
    `Amara, Bastian, Chiara, Dmitri, Elif, Farouk, Greta, Hiro, Ines, Jonas, Kavita, Lars, Mei, Nadia, Oskar, Priya, Quentin, Rosa, Stefan, Tala,
    Umberto, Vera, Wanjiru, Ximena, Yusuf, Zofia, Anders, Bianca, Caleb, Daphne, Emeka, Fiona, Gabriel, Hana, Ivan, Jasmine, Kofi, Lucia, Mateo, Noor`,
  ),
  place: bank(
    `Lisbon, Nairobi, Kyoto, Montreal, Tallinn, Valparaíso, Hanoi, Edinburgh, Marrakesh, Wellington, Ljubljana, Quito, Busan, Tbilisi, Oslo, Seville,
    Jaipur, Gdańsk, Oaxaca, Reykjavík, Accra, Porto, Antwerp, Almaty, Zürich, the old harbour, the mountain village, the north coast, the river delta`,
  ),
  role: bank(
    `teacher, nurse, carpenter, geologist, baker, librarian, pilot, programmer, gardener, judge, beekeeper, translator, farmer, chemist, violinist,
    architect, fisherman, historian, mechanic, journalist, tailor, astronomer, ranger, surveyor, clockmaker, potter`,
  ),
  adjective: bank(
    `quiet, narrow, ancient, bright, fragile, heavy, patient, curious, wooden, distant, sudden, careful, hollow, golden, bitter, stubborn, gentle,
    crowded, rusty, frozen, modest, elegant, uneven, transparent, reliable, temporary, seasonal, remarkable, forgotten, practical, noisy, shallow`,
  ),
  thing: bank(
    `lantern, bridge, notebook, engine, orchard, window, compass, kettle, ledger, telescope, staircase, violin, greenhouse, tunnel, map, ferry, mirror,
    clock, basket, lighthouse, archive, market, radio, garden, letter, tower, recipe, boat, library, camera, sensor, database, printer, battery, glacier`,
  ),
  material: bank(`oak, copper, limestone, wool, glass, clay, steel, paper, bamboo, granite, linen, rubber, brass, cork, slate, silk`),
  verb: bank(
    `repaired, measured, painted, carried, described, counted, discovered, borrowed, opened, followed, collected, sketched, moved, cleaned, replaced,
    weighed, photographed, restored, traded, examined, hid, delivered, sorted, inspected, assembled`,
  ),
  adverb: bank(
    `slowly, in the morning, with great care, before the storm, without a word, for the third time, at noon, by mistake, after supper, every week`,
  ),
  topic: bank(
    `photosynthesis, plate tectonics, compound interest, the water cycle, supply and demand, the immune system, binary search, the French Revolution,
    black holes, sourdough bread, tidal energy, the Silk Road, machine translation, public transport, vaccination, chess openings, soil erosion,
    electric motors, the printing press, time zones, coral reefs, jazz harmony, memory and sleep, recycling, relational databases, garbage collection,
    volcanoes, medieval guilds, negotiation, first aid, solar panels, the stock market, version control, bird migration, cryptography, nutrition`,
  ),
  audience: bank(
    `a ten-year-old, a new employee, a busy manager, my grandmother, a first-year student, a visiting tourist, a skeptical friend, a judge`,
  ),
  item: bank(
    `apples, notebooks, batteries, light bulbs, screws, bottles of water, candles, tickets, chairs, eggs, stamps, cables, towels, pencils, jars of honey,
    bags of rice, gloves, magnets, lamps, bricks`,
  ),
  verbCode: bank(
    `parse, merge, count, filter, find, update, build, split, rotate, encode, validate, group, sum, reverse, load, compress, normalize, schedule`,
  ),
  nounCode: bank(
    `items, records, tokens, intervals, words, nodes, prices, rows, events, matrix, queue, orders, scores, paths, users, lines, edges, samples, keys, cells`,
  ),
} as const;

export type WordKind = keyof typeof WORDS;

export function pick<T>(rng: Rng, from: readonly T[]): T {
  return from[rng.int(from.length)]!;
}

export function word(rng: Rng, kind: WordKind): string {
  return pick(rng, WORDS[kind]);
}
