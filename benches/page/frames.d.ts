interface Window {
  frames_: { reset(): void; read(): { frames: number; updates: number[] } };
}
