/**
 * What C sources define, declare and mention, as far as the architecture test asks. QEMU's style is
 * assumed: one declaration a statement, braces always. Nothing is preprocessed: both sides of an
 * #if count.
 */

export interface CFile {
  /** Functions and variables with external linkage. */
  readonly defines: ReadonlySet<string>;
  /** Prototypes and `extern`s. */
  readonly declares: ReadonlySet<string>;
  /** Every identifier. */
  readonly mentions: ReadonlySet<string>;
  /** Names in `#include "…"`. */
  readonly includes: ReadonlySet<string>;
}

const NOT_CODE = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g;
const DIRECTIVE = /^[ \t]*#(?:\\\n|[^\n])*/gm;

/** Without comments, strings and directives. */
function codeOf(text: string): string {
  return text.replace(NOT_CODE, ' ').replace(DIRECTIVE, '');
}

/**
 * Statements at file scope, each without what stands in its braces: `int f(void) {}`,
 * `const T v = {};`.
 */
function statementsOf(code: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let text = '';
  for (const character of code) {
    if (character === '}') depth--;
    if (depth === 0) text += character;
    if (character === '{') depth++;
    const isBody = character === '}' && /\)\s*\{\}$/.test(text);
    if (depth === 0 && (character === ';' || isBody)) {
      found.push(text.replace(/\s+/g, ' ').trim());
      text = '';
    }
  }
  return found;
}

const ATTRIBUTE = /\b(?:__attribute__ ?\(\(.*?\)\)\)?|G_GNUC_PRINTF ?\([^)]*\))/g;

/** The function of a prototype or definition, or the variable of a declaration. */
function nameIn(statement: string): string | undefined {
  const plain = statement.replace(ATTRIBUTE, ' ').replace(/\s+/g, ' ').trim();
  const called = /^[A-Za-z_][\w *]*?\b(\w+)\s?\(/.exec(plain);
  if (called && !/=/.test(plain.slice(0, called[0].length))) return called[1];
  return /^[A-Za-z_][\w *]*?\b(\w+)\s?(?:\[[^\]]*\]\s?)*(?:=.*)?;$/.exec(plain)?.[1];
}

/** Macros that stand at file scope like statements. */
const MACRO = /^(?:[A-Z][A-Z_]+|type_init) ?\([^)]*\);? ?/;

export function readC(text: string): CFile {
  const code = codeOf(text);
  const defines = new Set<string>();
  const declares = new Set<string>();
  for (const found of statementsOf(code)) {
    const statement = found.replace(MACRO, '');
    if (/^(?:static|typedef|struct \w+ ?(?:\{\} ?(?:__attribute__.*)?)?;|enum\b|union\b)/.test(statement))
      continue;
    const name = nameIn(statement);
    if (name === undefined) continue;
    const isPrototype = !statement.startsWith('extern') && /\)[^{}=]*;$/.test(statement);
    (statement.startsWith('extern') || isPrototype ? declares : defines).add(name);
  }
  return {
    defines,
    declares,
    mentions: new Set(code.match(/[A-Za-z_]\w*/g) ?? []),
    includes: new Set([...text.matchAll(/^#include "([^"]+)"/gm)].map(([, name]) => name as string)),
  };
}

/** Groups of more than one node, in each of which every node reaches every other. */
export function circlesOf(edges: ReadonlyMap<string, ReadonlySet<string>>): string[][] {
  const reachable = new Map([...edges.keys()].map((from) => [from, reachedFrom(from, edges)]));
  const circles = new Map<string, string[]>();
  for (const [from, reached] of reachable) {
    const circle = [...reached].filter((to) => reachable.get(to)?.has(from)).sort();
    if (circle.length > 1) circles.set(circle.join(' '), circle);
  }
  return [...circles.values()];
}

function reachedFrom(from: string, edges: ReadonlyMap<string, ReadonlySet<string>>): ReadonlySet<string> {
  const reached = new Set<string>();
  const open = [from];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const to of edges.get(next) ?? []) {
      if (reached.has(to)) continue;
      reached.add(to);
      open.push(to);
    }
  }
  return reached;
}
