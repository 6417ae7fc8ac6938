// What the made files have in common.

export const HEADER =
  '// Made from proto/viommu.proto by `npm run contract`, and checked against it by a test. Not to be edited.\n';

/** A comment as JSDoc, indented; nothing for none. */
export function doc(comment, indent = '') {
  if (!comment) return '';
  const lines = comment.split('\n');
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}\n`).join('')}${indent} */\n`;
}
