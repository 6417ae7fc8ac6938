import { testSuite } from './run-suite.js';
import { SMMU } from './smmu.js';

testSuite(SMMU);
