"""From the official files to a paper's table: the steps, what they need, and how they are done."""
