// Examples to try.

export const EXAMPLES = {
  capital: {
    query: "What is the capital of France?",
    documents: [
      "Bananas are yellow.",
      "Berlin is the capital of Germany.",
      "Lyon is the third-largest city of France.",
      "Paris is the capital of France and its largest city.",
      "The Eiffel Tower was completed in 1889.",
      "Rome has been the capital of Italy since 1871.",
    ],
    instruction: "",
  },
  chinese: {
    query: "猫为什么会打呼噜？",
    documents: [
      "狗用尾巴表达情绪。",
      "猫在放松或感到舒适时会打呼噜，声音来自喉部肌肉的振动。",
      "中国的首都是北京。",
      "猫每天要睡十二到十六个小时。",
      "打呼噜的人应当侧着睡。",
    ],
    instruction: "",
  },
  code: {
    query: "remove duplicates from a list but keep the order",
    documents: [
      "def chunks(items, size):\n    return [items[i:i + size] for i in range(0, len(items), size)]",
      "def flatten(lists):\n    return [item for inner in lists for item in inner]",
      "def unique(items):\n    return list(dict.fromkeys(items))",
      "def shuffle(items):\n    random.shuffle(items)\n    return items",
    ],
    instruction: "",
  },
  support: {
    query: "How do I get a refund?",
    documents: [
      "Change the language of the app under Settings, Language.",
      "Your password can be reset from the sign-in page.",
      "To get a refund, open the order and choose Request a refund. The money is back within five days.",
      "Invoices are sent by e-mail on the first day of each month.",
      "Subscriptions can be cancelled at any time; what has been paid is not returned.",
    ],
    instruction: "",
  },
};
