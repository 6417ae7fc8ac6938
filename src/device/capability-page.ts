/**
 * The capability page, docs/capabilities.md: what each model's identification registers say, field
 * by field, and which options change it. Made from the declared register tables and from units that
 * are really made, so it says what a guest reads. `npm run capabilities` writes it.
 */
import { PAGE_BYTES } from '../base/page.js';
import { ArrayMemory } from '../memory/array.js';
import type { Field, Register } from '../spec/define.js';
import { AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR } from '../spec/smmuv3/registers.js';
import { VCCAP, VCID0, VCID1 } from '../spec/smmuv3/virtual-commands.js';
import { CAP_REG, ECAP_REG, VCCAP_REG, VER_REG } from '../spec/vtd/registers.js';
import type { IommuOutputs } from './iommu.js';
import { createModel, modelRegisterBytes } from './models.js';
import { smmuOptionDefaults } from './smmuv3/config.js';
import { vtdOptionDefaults } from './vtd/config.js';

type Options = Readonly<Record<string, string>>;

interface Subject {
  readonly title: string;
  readonly model: 'vtd' | 'smmuv3';
  readonly details: string;
  readonly registers: readonly Register<string>[];
  readonly defaults: Options;
  /** Option settings that are tried, each on its own. */
  readonly variants: readonly Options[];
}

/** Options that no identification register shows. */
const INVISIBLE: readonly string[] = ['cache-policy'];

const SUBJECTS: readonly Subject[] = [
  {
    title: 'Intel VT-d',
    model: 'vtd',
    details: 'vtd.md',
    registers: [VER_REG, CAP_REG, ECAP_REG, VCCAP_REG],
    defaults: vtdOptionDefaults(),
    variants: [
      { 'caching-mode': 'on' },
      { 'scalable-mode': 'off' },
      { 'aw-bits': '39' },
      { 'aw-bits': '57' },
      { 'first-stage': 'off' },
      { 'snoop-control': 'off' },
      { 'pass-through': 'off' },
      { 'fault-records': '64' },
      { 'pasid-bits': '0' },
      { 'pasid-bits': '16' },
      { 'virtual-commands': 'on', 'caching-mode': 'on' },
      { 'device-tlb': 'on' },
      { 'page-requests': 'on', 'device-tlb': 'on' },
      { intremap: 'on' },
      { intremap: 'on', eim: 'on' },
    ],
  },
  {
    title: 'Arm SMMUv3',
    model: 'smmuv3',
    details: 'smmuv3.md',
    registers: [IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR, AIDR, VCID0, VCID1, VCCAP],
    defaults: smmuOptionDefaults(),
    variants: [
      { stages: '1' },
      { stages: '2' },
      { granules: '4k' },
      { granules: '16k' },
      { granules: '64k' },
      { oas: '40' },
      { oas: '52' },
      { 'ssid-bits': '0' },
      { 'ssid-bits': '20' },
      { 'two-level': 'off' },
      { httu: 'off' },
      { httu: 'access' },
      { 'range-invalidation': 'off' },
      { stall: 'off' },
      { ats: 'on' },
      { ats: 'on', pri: 'off' },
      { 'virtual-commands': 'on' },
    ],
  },
];

/** Outputs that lead nowhere, for a unit without a session. */
const NO_OUTPUTS: IommuOutputs = {
  invalidate: () => {},
  pendingAcks: () => 0,
  interrupt: () => {},
  resume: () => {},
  pageResponse: () => {},
  invalidateDeviceTlb: () => false,
  event: () => {},
};

/** Options of a model that no variant of the page sets. */
export function untriedOptions(): string[] {
  return SUBJECTS.flatMap(({ model, defaults, variants }) =>
    Object.keys(defaults)
      .filter((name) => !INVISIBLE.includes(name) && !variants.some((variant) => name in variant))
      .map((name) => `${model}: ${name}`),
  );
}

/** The whole page. */
export function capabilityPage(): string {
  const parts = SUBJECTS.map(
    (
      subject,
    ) => `## ${subject.title}\n\nDecisions and what is not there: [${subject.details}](${subject.details}).
Defaults: ${optionsText(subject.defaults)}.\n\n${subject.registers.map((register) => section(subject, register)).join('\n')}`,
  );
  return `# Capabilities

What the identification registers of each model say, read from units that were made with these options. The positions
are those of the register tables in \`src/spec\`. Made by \`npm run capabilities\`; \`src/device/capability-page.test.ts\`
compares.

${parts.join('\n')}`;
}

function section(subject: Subject, register: Register<string>): string {
  const usual = words(subject, {});
  const base = register.offset >> 2;
  const rows: string[] = [];
  const absent: string[] = [];
  for (const field of Object.values<Field>(register.fields)) {
    const read = (from: Uint32Array): number => register.get[field.name](from, base);
    const value = read(usual);
    const changes: string[] = [];
    for (const variant of subject.variants) {
      const other = read(words(subject, variant));
      if (other !== value) changes.push(`${optionsText(variant)}: ${other}`);
    }
    if (value === 0 && changes.length === 0) absent.push(field.name);
    else rows.push(`| ${field.name} | ${position(field)} | ${value} | ${changes.join('; ')} |`);
  }
  const table =
    rows.length === 0
      ? ''
      : `\n| field | bits | value | otherwise |\n|---|---|---|---|\n${rows.join('\n')}\n`;
  const zero = absent.length === 0 ? '' : `\nZero whatever the options: ${absent.join(', ')}.\n`;
  const empty = rows.length + absent.length === 0 ? '\nZero: IMPLEMENTATION DEFINED.\n' : '';
  const { name, offset, width } = register;
  return `### ${name}\n\nOffset 0x${offset.toString(16).padStart(3, '0')}, ${width} bits.\n${table}${zero}${empty}`;
}

function position({ msb, lsb }: Field): string {
  return msb === lsb ? `${lsb}` : `${msb}:${lsb}`;
}

function optionsText(options: Options): string {
  return Object.entries(options)
    .map(([name, value]) => `\`${name}=${value}\``)
    .join(', ');
}

/** Register words of a unit with these options, as a guest reads them. */
function words({ model }: Subject, options: Options): Uint32Array {
  const registers = new Uint32Array(modelRegisterBytes(model) / 4);
  const memory = new ArrayMemory([{ base: 0, bytes: PAGE_BYTES }]);
  createModel(model, options, { memory, registers, outputs: NO_OUTPUTS });
  return registers;
}
