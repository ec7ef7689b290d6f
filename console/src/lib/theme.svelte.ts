// Light, dark, or as the system has it.

export type Choice = "system" | "light" | "dark";

class Theme {
  choice = $state<Choice>((localStorage.getItem("theme") as Choice | null) ?? "system");

  apply() {
    const root = document.documentElement;
    if (this.choice === "system") delete root.dataset["theme"];
    else root.dataset["theme"] = this.choice;
  }

  /** The next choice. */
  turn() {
    const order: Choice[] = ["system", "light", "dark"];
    this.choice = order[(order.indexOf(this.choice) + 1) % order.length] ?? "system";
    localStorage.setItem("theme", this.choice);
    this.apply();
  }
}

export const theme = new Theme();
