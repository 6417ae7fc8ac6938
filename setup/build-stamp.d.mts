export function requireFresh(root: string, instead?: string): void;
