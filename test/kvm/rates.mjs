/** What the scenario `reads` measured, by side. */

/** Rounds as level 2's job strict-reads asks for them. */
const SHAPES = ['NVMe, depth 1', 'NVMe, depth 32', 'virtio-blk, depth 1', 'virtio-blk, depth 32'];

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

export class Rates {
  #side = 'stock';
  #rounds = 0;
  /** Reads per second, by side and shape. */
  #rates = { stock: SHAPES.map(() => []), ours: SHAPES.map(() => []) };

  /** A line of level 1 or 2. */
  hear({ who, what, fields }) {
    if (who === 'L1' && what === 'begin') {
      this.#side = fields.side;
      this.#rounds = 0;
    } else if (who === 'GUEST' && what === 'read-bench' && fields.ns !== undefined) {
      const rate = (Number(fields.reads) * 1e9) / Number(fields.ns);
      this.#rates[this.#side][this.#rounds++ % SHAPES.length].push(rate);
    }
  }

  /** Lines of text: reads per second, medians. */
  table() {
    return SHAPES.map((shape, index) => {
      const [ours, stock] = ['ours', 'stock'].map((side) => median(this.#rates[side][index]) ?? Number.NaN);
      const [left, right] = [ours, stock].map((rate) => rate.toFixed(0).padStart(6));
      return `${shape.padEnd(22)} ${left} reads/s, stock ${right}: ${(ours / stock).toFixed(2)} ×`;
    });
  }
}
