/** The lines that level 1 prints for the test outside (test/vfio/level1.mjs reads them). */

const text = (value) => (/[\s"]/.test(`${value}`) ? `"${`${value}`.replaceAll('"', "'")}"` : value);

/** Seconds since level 1's programs started. */
export const seconds = () => Math.round(performance.now() / 100) / 10;

/** One line: a word, and fields. */
export function say(what, fields = {}) {
  const words = Object.entries(fields).map(([name, value]) => `${name}=${text(value)}`);
  console.log(['VIOMMU-L1:', what, ...words].join(' '));
}

/** One line that carries an object. */
export const sayObject = (what, object) => console.log(`VIOMMU-L1: ${what} ${JSON.stringify(object)}`);
