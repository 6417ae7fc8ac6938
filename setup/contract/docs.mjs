// The contract's tables in docs/protocol.md.

/** The table of the control page's words, put between the two marks of the text. */
export function withControlWords(text, { enums }) {
  const words = enums.find(({ constant }) => constant === 'CONTROL').entries;
  const rows = words.flatMap(({ name, number, comment }) => {
    const [, writer, meaning] = /^(\w+): (.*)$/.exec(comment) ?? [];
    if (writer === undefined) throw new Error(`${name}: whose word it is stands before its meaning`);
    return writer === 'none' ? [] : [`| ${number} | \`${name}\` | ${writer} | ${meaning} |`];
  });
  const table = ['| word | name | written by | meaning |', '|---|---|---|---|', ...rows].join('\n');
  const marks = /(<!-- control words:[^>]*-->\n)[\s\S]*?(<!-- \/control words -->)/;
  if (!marks.test(text)) throw new Error('there is no place for the control words');
  return text.replace(marks, (_, begin, end) => `${begin}${table}\n${end}`);
}
