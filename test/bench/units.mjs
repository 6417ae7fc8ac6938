/** The IOMMUs that are measured: ours, and QEMU's own of the same kind beside it. */

/**
 * One side of a comparison: the machine's type with its options, and the arguments for the IOMMU.
 * @typedef {{machine: string, iommu: string[]}} Side
 */

export const UNITS = {
  vtd: {
    name: 'VT-d',
    target: 'x86_64',
    stockName: 'intel-iommu',
    /** What the set-up made for its guests. */
    part: (paths) => paths,
    /**
     * @param {string} [more] further properties of the device
     * @returns {Side}
     */
    ours: (socket, more = '') => ({
      machine: 'q35',
      iommu: ['-device', `viommu-vtd,socket=${socket},aw-bits=48${more}`],
    }),
    /** Without interrupt remapping, which ours does not offer: both do the same work. */
    stock: { machine: 'q35', iommu: ['-device', 'intel-iommu,aw-bits=48,intremap=off'] },
    cpu: 'max,la57=off',
    words: 'console=ttyS0 quiet no_timer_check intel_iommu=on,sm_off',
    /** Part of stock's miss that a walk in the daemon may take. */
    walkReach: 0.2,
  },
  smmuv3: {
    name: 'SMMUv3',
    target: 'aarch64',
    stockName: 'smmuv3',
    part: (paths) => paths.arm64,
    /** @returns {Side} */
    ours: (socket, more = '') => ({
      machine: 'virt,gic-version=3',
      iommu: ['-device', `viommu-smmuv3,socket=${socket}${more}`],
    }),
    stock: { machine: 'virt,gic-version=3,iommu=smmuv3', iommu: [] },
    cpu: 'cortex-a57',
    // Strict is the default of Debian's arm64 kernels; lazy is what the other unit's are measured
    // with.
    words: 'console=ttyAMA0 quiet iommu.strict=0',
    walkReach: 0.1,
  },
};
