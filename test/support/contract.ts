/** The wire contract as protobufjs sees it: a second reading of it, beside the made codecs. */
import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';

const PROTO_FILE = new URL('../../proto/viommu.proto', import.meta.url);

export const contract = protobuf.parse(readFileSync(PROTO_FILE, 'utf8'), new protobuf.Root()).root;
